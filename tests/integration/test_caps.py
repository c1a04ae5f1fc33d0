"""Caps and floods: too many connections, too many that never say who they are, too many commands."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from shared.contracts.ids import new_id
from tests.support.clients import chat_client, stream_client
from tests.support.edges import Edges, LocalEdge, both_engines
from tests.support.raw import RawSocket
from tests.support.tokens import Mint
from tests.support.waiting import eventually

FORWARDED = "x-forwarded-for"


async def refusal(edge: LocalEdge, user: str | None = None, **headers: str) -> httpx.Response | Any:
    """Return the HTTP response that a WebSocket gets instead of its handshake."""
    with pytest.raises(InvalidStatus) as refused:
        async with chat_client(edge, user, headers=headers):
            pass
    return refused.value.response


def forged(number: int) -> str:
    """Return a token that nobody has seen before, signed by somebody else."""
    return Mint().token(f"u{number}")


def nobody_on(edge: LocalEdge) -> bool:
    """Whether an edge counts nobody any more."""
    sessions, waiting = (edge.gauge(name, transport="websocket") for name in ("sessions", "connections_waiting"))
    return sessions == waiting == edge.gauge("pool_connections") == 0


# -- by address -------------------------------------------------------------------------------------------------------


@both_engines
async def test_an_address_with_too_many_sockets_is_refused_before_the_handshake_until_one_leaves(edges: Edges) -> None:
    edge = await edges.chat(max_sockets_per_address=2)
    async with chat_client(edge, new_id("u")):
        async with chat_client(edge, new_id("u")):
            answer = await refusal(edge, new_id("u"))

        await eventually(lambda: edge.gauge("sessions", transport="websocket") == 1)
        async with chat_client(edge, new_id("u")) as again:
            await again.say("hi")

    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert b"rate_limited" in answer.body
    assert edge.count("sessions_refused", transport="websocket", cap="address") == 1


@both_engines
async def test_an_address_with_too_many_streams_is_refused_until_one_ends(edges: Edges) -> None:
    edge = await edges.notifications(max_streams_per_address=1)
    async with stream_client(edge, new_id("u")):
        answer = await edge.http.get("/api/stream", headers=edge.headers(new_id("u")))

    await eventually(lambda: edge.gauge("sessions", transport="sse") == 0)
    async with stream_client(edge, new_id("u")):
        pass
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert int(answer.headers["retry-after"]) >= 1


async def test_behind_a_trusted_proxy_each_client_has_its_own_address(edges: Edges) -> None:
    edge = await edges.chat(max_sockets_per_address=1, trusted_proxies=["127.0.0.1"])
    one, other = {FORWARDED: "203.0.113.7"}, {FORWARDED: "203.0.113.8"}
    async with chat_client(edge, new_id("u"), headers=one), chat_client(edge, new_id("u"), headers=other):
        answer = await refusal(edge, new_id("u"), **one)

    assert answer.status_code == 429


async def test_a_client_that_is_no_trusted_proxy_cannot_choose_its_address(edges: Edges) -> None:
    edge = await edges.chat(max_sockets_per_address=1)
    async with chat_client(edge, new_id("u"), headers={FORWARDED: "203.0.113.7"}):
        answer = await refusal(edge, new_id("u"), **{FORWARDED: "203.0.113.8"})

    assert answer.status_code == 429


# -- how often an address comes ---------------------------------------------------------------------------------------


@both_engines
async def test_an_address_that_comes_again_and_again_with_nothing_that_holds_is_refused_before_the_handshake(
    edges: Edges,
) -> None:
    edge = await edges.chat(max_sockets_per_address=2, arrival_rate_hz=0.1, trusted_proxies=["127.0.0.1"])
    flood, neighbour = {FORWARDED: "203.0.113.7"}, {FORWARDED: "203.0.113.8"}
    for number in range(4):
        async with chat_client(edge, headers=flood, greeted=False, query=[("token", forged(number))]) as client:
            assert await client.closed() == 4008
    answer = await refusal(edge, new_id("u"), **flood)
    async with chat_client(edge, new_id("u"), headers=neighbour) as other:
        await other.say("hi")

    assert answer.status_code == 429
    assert 5 <= int(answer.headers["retry-after"]) <= 10
    assert b"rate_limited" in answer.body
    assert edge.count("sessions_refused", transport="websocket", cap="arrivals") == 1


@both_engines
async def test_streams_that_never_open_are_counted_too_and_refused_before_their_token_is_checked(edges: Edges) -> None:
    edge = await edges.notifications(max_streams_per_address=1, arrival_rate_hz=0.1)
    answers = [await edge.http.get("/api/stream", params={"token": forged(number)}) for number in range(3)]
    good = await edge.http.get("/api/stream", headers=edge.headers(new_id("u")))

    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert (good.status_code, good.json()["code"]) == (429, "rate_limited")
    assert int(good.headers["retry-after"]) >= 5
    assert edge.count("sessions_refused", transport="sse", cap="arrivals") == 2


@both_engines
async def test_all_that_an_address_held_may_come_at_once_and_again_with_fresh_tokens(edges: Edges) -> None:
    """What an edge's death does to an office behind one address, whose tokens have expired overnight."""
    edge = await edges.chat(max_sockets_per_address=30, arrival_rate_hz=0.01)
    async with AsyncExitStack() as stack:

        async def come(number: int) -> None:
            async with chat_client(edge, f"u{number}", greeted=False, ttl_s=-60) as late:
                assert await late.closed() == 4009
            await stack.enter_async_context(chat_client(edge, f"u{number}"))

        async with asyncio.TaskGroup() as herd:
            for number in range(30):
                herd.create_task(come(number))

        assert edge.gauge("sessions", transport="websocket") == 30


@pytest.mark.parametrize("service", ["chat", "notifications"])
async def test_calls_whose_credential_does_not_hold_count_as_arrivals_of_their_address_and_others_do_not(
    edges: Edges, service: str
) -> None:
    caps: dict[str, Any] = {"max_sockets_per_address": 2} if service == "chat" else {"max_streams_per_address": 2}
    edge = await getattr(edges, service)(arrival_rate_hz=0.01, trusted_proxies=["127.0.0.1"], **caps)
    path = "/api/chat/rooms" if service == "chat" else "/api/stocks"

    async def status(address: str, authorization: dict[str, str]) -> int:
        answer = await edge.http.get(path, headers=authorization | {FORWARDED: address})
        return int(answer.status_code)

    good, late = edge.headers("u"), edge.headers("u", ttl_s=-60)
    honest = [await status("203.0.113.7", header) for header in [good, late] * 5]
    bad = [await status("203.0.113.7", {"authorization": f"Bearer {forged(number)}"}) for number in range(5)]
    after = [await status(address, good) for address in ("203.0.113.7", "203.0.113.8")]

    assert honest == [200, 401] * 5
    assert bad == [401] * 4 + [429]
    assert after == [429, 200]


@pytest.mark.parametrize("lifted", [{"arrival_rate_hz": 0}, {"max_streams_per_address": 0}, {"FANFARE_LIMITS": "off"}])
async def test_where_the_limit_is_lifted_an_address_may_come_as_often_as_it_likes(
    edges: Edges, lifted: dict[str, Any]
) -> None:
    edge = await edges.notifications(**{"max_streams_per_address": 1, "arrival_rate_hz": 0.1} | lifted)
    answers = [await edge.http.get("/api/stream", params={"token": forged(number)}) for number in range(5)]

    assert [answer.status_code for answer in answers] == [401] * 5


# -- before authentication --------------------------------------------------------------------------------------------


@both_engines
async def test_sockets_that_never_say_who_they_are_take_no_more_than_their_share(edges: Edges) -> None:
    edge = await edges.chat(max_waiting=2, auth_deadline_s=60)
    silent = [await RawSocket.upgraded(edge) for _ in range(2)]
    answer = await refusal(edge, new_id("u"))
    silent.pop().close()
    await eventually(lambda: edge.gauge("connections_waiting", transport="websocket") == 1)
    async with chat_client(edge, new_id("u")) as client:
        await client.say("hi")
    silent.pop().close()

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert edge.count("sessions_refused", transport="websocket", cap="waiting") == 1


@both_engines
async def test_an_address_cannot_take_the_share_of_all_others(edges: Edges) -> None:
    edge = await edges.chat(max_waiting_per_address=1, auth_deadline_s=60, trusted_proxies=["127.0.0.1"])
    silent = await RawSocket.upgraded(edge, headers={FORWARDED: "203.0.113.7"})
    answer = await refusal(edge, new_id("u"), **{FORWARDED: "203.0.113.7"})
    async with chat_client(edge, new_id("u"), headers={FORWARDED: "203.0.113.8"}) as other:
        await other.say("hi")
    silent.close()

    assert answer.status_code == 429
    assert edge.count("sessions_refused", transport="websocket", cap="waiting_address") == 1


@both_engines
async def test_whoever_has_said_who_they_are_waits_no_more(edges: Edges) -> None:
    edge, late = await edges.chat(max_waiting=1), new_id("u")
    async with chat_client(edge) as first:
        await first.send("auth", token=edge.mint.token(late))
        await first.inbox.next("connected")
        async with chat_client(edge, new_id("u")) as second:
            ack = await second.say("hi")

    assert ack["room"] == "general"
    assert edge.count("sessions_refused", transport="websocket", cap="waiting") == 0


@both_engines
async def test_connections_that_come_and_go_in_every_way_leave_no_count_behind(edges: Edges) -> None:
    edge = await edges.chat(max_rooms_per_socket=1, max_sockets_per_address=2)
    for _ in range(5):
        (await RawSocket.upgraded(edge, headers=edge.headers(new_id("u")))).abort()
        (await RawSocket.upgraded(edge)).abort()
        await eventually(lambda: nobody_on(edge))
        for path in ("/ws/chat?room=a&room=b", "/ws/chat?token=nonsense"):
            raw = await RawSocket.upgraded(edge, path)
            await raw.close_code()
            raw.close()
        await eventually(lambda: nobody_on(edge))
    assert edge.count("sessions_refused", transport="websocket", cap="address") == 0


# -- floods of commands -----------------------------------------------------------------------------------------------


@both_engines
@pytest.mark.parametrize("type_", ["join", "leave", "ping", "auth"])
async def test_a_flood_of_commands_is_answered_with_when_to_come_back_and_then_closed(edges: Edges, type_: str) -> None:
    edge, user = await edges.chat(command_rate_hz=0.1, command_burst=5, refused_before_close=3), new_id("u")
    data = {"token": edge.mint.token(user)} if type_ == "auth" else {"room": "r"}
    async with chat_client(edge, user) as client:
        for number in range(8):
            await client.send(type_, data, id=str(number))
        code = await client.closed()
    errors = client.inbox.of_type("error")

    assert code == 4029
    assert [frame["id"] for frame in errors] == ["5", "6", "7"]
    assert all(frame["data"]["code"] == "rate_limited" for frame in errors)
    assert all(0 < frame["data"]["retryAfterMs"] <= 10_000 for frame in errors)


@both_engines
async def test_a_client_may_join_all_the_rooms_that_it_may_follow_at_once(edges: Edges) -> None:
    edge = await edges.chat()
    async with chat_client(edge, new_id("u")) as client:
        for number in range(49):
            await client.send("join", {"room": f"room-{number}"})
        await client.inbox.until(lambda inbox: len(inbox.of_type("joined")) == 49)

    assert client.inbox.of_type("error") == []


@both_engines
async def test_messages_are_not_counted_among_the_commands(edges: Edges) -> None:
    edge = await edges.chat(command_rate_hz=0.1, command_burst=1)
    async with chat_client(edge, new_id("u")) as client:
        for number in range(5):
            await client.say(f"message {number}")

    assert client.inbox.of_type("error") == []


@both_engines
async def test_a_client_that_sends_nothing_but_nonsense_is_closed(edges: Edges) -> None:
    edge = await edges.chat(command_rate_hz=0.1, command_burst=5)
    async with chat_client(edge, new_id("u")) as client:
        for _ in range(10):
            await client.socket.send("nonsense")
        code = await client.closed()

    assert code == 4029
    assert len(client.inbox.of_type("error")) == 6


async def test_a_user_who_subscribes_too_often_is_told_when_to_come_back_and_another_is_not(edges: Edges) -> None:
    edge, user = await edges.notifications(call_rate_hz=0.5, call_burst=3), new_id("u")
    calls = ["subscribe", "unsubscribe", "subscribe", "unsubscribe"]
    answers = [
        await edge.http.post(f"/api/stocks/{call}", json={"symbols": ["AAPL"]}, headers=edge.headers(user))
        for call in calls
    ]
    other = await edge.http.get("/api/stocks", headers=edge.headers(new_id("u")))

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 0 < answers[-1].json()["retryAfterMs"] <= 2_001
    assert answers[-1].headers["retry-after"] in {"1", "2", "3"}
    assert other.status_code == 200


async def test_a_user_who_calls_the_chat_too_often_may_send_all_the_same(edges: Edges) -> None:
    edge, user = await edges.chat(command_rate_hz=0.1, command_burst=2), new_id("u")
    rooms = [await edge.http.get("/api/chat/rooms", headers=edge.headers(user)) for _ in range(3)]
    sent = await edge.http.post("/api/chat/messages", json={"content": "hi"}, headers=edge.headers(user))

    assert [answer.status_code for answer in rooms] == [200, 200, 429]
    assert sent.status_code == 201


async def test_for_benchmarks_there_are_no_caps(edges: Edges) -> None:
    edge = await edges.chat(
        FANFARE_LIMITS="off", max_sockets_per_address=1, max_waiting=1, command_burst=1, command_rate_hz=0.1
    )
    async with chat_client(edge, new_id("u")), chat_client(edge, new_id("u")) as client:
        for _ in range(5):
            await client.send("ping")
        await client.inbox.until(lambda inbox: len(inbox.of_type("pong")) == 5)

        assert client.inbox.of_type("error") == []
