"""Every way into the chat, and every way to be kept out or shown out (requirement W2)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect

from shared.clock import now_ms, now_s
from shared.contracts import subjects
from shared.contracts.events import Revocation
from shared.contracts.ids import new_id
from tests.integration.conftest import Pair
from tests.support.clients import ChatClient, chat_client
from tests.support.edges import Edge, Edges

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def refused(client: ChatClient) -> tuple[str, int]:
    """Return the code of the error frame that came first, and the close code."""
    error = await client.inbox.next("error")
    return error["data"]["code"], await client.closed()


def someone() -> str:
    return new_id("user-")


# -- in ---------------------------------------------------------------------------------------------------------------


async def test_w2_a_bearer_header_authenticates(pair: Pair) -> None:
    user = someone()
    async with chat_client(pair.a, user) as client:
        (connected,) = client.inbox.of_type("connected")

        assert connected["data"]["userId"] == user
        assert connected["data"]["session"].startswith(pair.a.name + ".")
        assert connected["data"]["heartbeatMs"] == 25_000
        assert connected["data"]["limits"]["messages"] == 100
        assert [room["room"] for room in connected["data"]["rooms"]] == ["general"]


async def test_w2_a_cookie_authenticates(pair: Pair) -> None:
    user = someone()
    async with chat_client(pair.a, headers={"cookie": f"theme=dark; auth_token={pair.mint.token(user)}"}) as client:
        assert (await client.inbox.next("connected"))["data"]["userId"] == user


async def test_w2_a_token_in_the_query_authenticates_for_the_articles_clients(pair: Pair) -> None:
    user = someone()
    async with chat_client(pair.a, query=[("token", pair.mint.token(user))]) as client:
        assert (await client.inbox.next("connected"))["data"]["userId"] == user


async def test_w2_the_first_frame_authenticates(pair: Pair) -> None:
    user = someone()
    async with connect(f"{pair.a.ws_url}/ws/chat") as socket:
        await socket.send(json.dumps({"type": "auth", "token": pair.mint.token(user)}))

        assert json.loads(await socket.recv())["data"]["userId"] == user


async def test_w2_a_ticket_opens_one_connection_whichever_edge_it_is_shown_to(pair: Pair) -> None:
    ticket = [("ticket", pair.mint.ticket(someone()))]
    async with chat_client(pair.a, query=ticket) as first:
        await first.inbox.next("connected")
        for edge in (pair.a, pair.b):
            async with chat_client(edge, query=ticket) as again:
                assert await refused(again) == ("unauthorized", 4008)


async def test_w2_of_many_who_show_one_ticket_at_once_one_gets_in(pair: Pair) -> None:
    ticket = [("ticket", pair.mint.ticket(someone()))]

    async def try_it(edge: Edge) -> bool:
        async with chat_client(edge, query=ticket) as client:
            await client.inbox.until(lambda inbox: bool(inbox.frames))
            return bool(client.inbox.frames[0]["type"] == "connected")

    assert sum(await asyncio.gather(*(try_it(edge) for edge in (pair.a, pair.b) * 4))) == 1


async def test_w2_a_second_auth_frame_renews_the_token(pair: Pair) -> None:
    user = someone()
    async with chat_client(pair.a, user, ttl_s=2) as renewed, chat_client(pair.a, user, ttl_s=2) as not_renewed:
        await renewed.send("auth", token=pair.mint.token(user))
        await renewed.inbox.next("renewed")
        await not_renewed.inbox.next("token_expiring")

        assert await refused(not_renewed) == ("token_expired", 4009)
        await renewed.send("ping")
        await renewed.inbox.next("pong")


async def test_s6_a_token_without_the_right_to_chat_renews_nothing(pair: Pair) -> None:
    user = someone()
    async with chat_client(pair.a, user, ttl_s=2) as client:
        await client.send("auth", token=pair.mint.token(user, scope="stream"))
        assert (await client.inbox.next("error"))["data"]["code"] == "forbidden"

        error = await client.inbox.next("error", lambda frame: frame["data"]["code"] != "forbidden")
        assert (error["data"]["code"], await client.closed()) == ("token_expired", 4009)


# -- kept out ---------------------------------------------------------------------------------------------------------


async def test_w2_no_credential_within_the_deadline_closes_with_4008(more_edges: Edges) -> None:
    edge = await more_edges.chat(auth_deadline_s=0.2)
    async with chat_client(edge) as client:
        assert await refused(client) == ("unauthorized", 4008)


@pytest.mark.parametrize(
    "first", ['{"type":"ping"}', '{"type":"send_message","data":{"content":"hi"}}', "nonsense", "[]", "", "x" * 70_000]
)
async def test_w2_any_other_first_frame_closes_with_4008(pair: Pair, first: str) -> None:
    async with chat_client(pair.a) as client:
        await client.socket.send(first)
        error, code = await refused(client)

        assert (error, code) in {("unauthorized", 4008), ("too_large", 4013)}


BAD_TOKENS: dict[str, tuple[dict[str, Any], str, int]] = {
    "expired": ({"ttl_s": -60}, "token_expired", 4009),
    "of another audience": ({"aud": "others"}, "unauthorized", 4008),
    "of another issuer": ({"iss": "others"}, "unauthorized", 4008),
    "from the future": ({"iat": now_s() + 3_600}, "unauthorized", 4008),
    "of no user": ({"sub": "*"}, "unauthorized", 4008),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
@pytest.mark.parametrize("by_frame", [True, False], ids=["frame", "header"])
async def test_w2_a_token_that_does_not_hold_is_refused_with_a_reason(pair: Pair, kind: str, by_frame: bool) -> None:
    claims, error, code = BAD_TOKENS[kind]
    token = pair.mint.token(someone(), **claims)
    async with chat_client(pair.a, headers={} if by_frame else {"authorization": f"Bearer {token}"}) as client:
        if by_frame:
            await client.send("auth", token=token)

        assert await refused(client) == (error, code)


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "x" * 4_096])
async def test_w2_what_is_no_token_is_refused(pair: Pair, token: str) -> None:
    async with chat_client(pair.a) as client:
        await client.send("auth", token=token)

        assert await refused(client) == ("unauthorized", 4008)


async def test_w2_a_ticket_is_no_access_token(pair: Pair) -> None:
    async with chat_client(pair.a, headers={"authorization": f"Bearer {pair.mint.ticket(someone())}"}) as client:
        assert await refused(client) == ("unauthorized", 4008)


async def test_w2_nothing_is_done_for_a_client_that_was_refused(pair: Pair) -> None:
    room = new_id("room-")
    token = pair.mint.token(someone())
    async with chat_client(pair.b, someone(), rooms=[room]) as witness:
        async with chat_client(pair.a, rooms=[room]) as client:
            await client.send("auth", token="wrong")
            await client.send("auth", token=token)
            await client.send("send_message", {"content": "let me in"})
            assert await refused(client) == ("unauthorized", 4008)
        await witness.say("done")
        await witness.hears("done")

        assert [frame["type"] for frame in client.inbox.frames] == ["error"]
        assert [message["content"] for message in witness.messages] == ["done"]


async def test_a_token_without_the_scope_of_the_chat_is_refused(pair: Pair) -> None:
    async with chat_client(pair.a, someone(), greeted=False, scope="stream") as client:
        assert await refused(client) == ("forbidden", 4003)


async def test_a_connection_cannot_change_its_user(pair: Pair) -> None:
    async with chat_client(pair.a, someone()) as client:
        await client.send("auth", token=pair.mint.token(someone()))

        assert await refused(client) == ("unauthorized", 4008)


async def test_a_user_has_a_bounded_number_of_connections_to_an_edge(more_edges: Edges) -> None:
    edge = await more_edges.chat(max_sockets_per_user=2)
    user = someone()
    async with chat_client(edge, user), chat_client(edge, user) as second:
        async with chat_client(edge, user, greeted=False) as third:
            assert await refused(third) == ("rate_limited", 4029)
        await second.close()
        async with chat_client(edge, user):
            assert edge.count("sessions_refused", transport="websocket", cap="user") == 1


# -- origins ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("credential", ["cookie", "header", "none"])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "{own}.evil.example", "{own}@evil.example", "file://"]
)
async def test_a_page_of_a_foreign_origin_is_refused_with_4003(pair: Pair, origin: str, credential: str) -> None:
    token = pair.mint.token(someone())
    headers = {
        "cookie": {"cookie": f"auth_token={token}"},
        "header": {"authorization": f"Bearer {token}"},
        "none": {},
    }[credential]
    async with chat_client(pair.a, headers=headers | {"origin": origin.format(own=pair.a.url)}) as client:
        assert await refused(client) == ("origin_refused", 4003)


async def test_a_page_of_this_host_passes(pair: Pair) -> None:
    user = someone()
    headers = {"cookie": f"auth_token={pair.mint.token(user)}", "origin": pair.a.url}
    async with chat_client(pair.a, headers=headers) as client:
        assert (await client.inbox.next("connected"))["data"]["userId"] == user


async def test_an_origin_of_the_list_passes_and_its_neighbours_do_not(more_edges: Edges) -> None:
    edge = await more_edges.chat(allowed_origins="https://app.example.com")
    cookie = {"cookie": f"auth_token={more_edges.mint.token(someone())}"}
    async with chat_client(edge, headers=cookie | {"origin": "https://app.example.com"}) as client:
        await client.inbox.next("connected")
    for origin in ("http://app.example.com", "https://app.example.com:8443", "https://app.example.com.evil"):
        async with chat_client(edge, headers=cookie | {"origin": origin}) as client:
            assert await refused(client) == ("origin_refused", 4003)


# -- shown out --------------------------------------------------------------------------------------------------------


async def test_w2_an_expired_token_ends_the_connection_with_4009_after_a_warning(pair: Pair) -> None:
    async with chat_client(pair.a, someone(), ttl_s=1) as client:
        assert client.inbox.frames[0]["type"] == "connected"
        assert (await client.inbox.next("token_expiring"))["data"]["inMs"] <= 1_000
        assert await refused(client) == ("token_expired", 4009)


async def test_a_token_in_the_leeway_behind_its_end_is_told_no_time_before_it_is_ended(pair: Pair) -> None:
    async with chat_client(pair.a, someone(), ttl_s=-2, iat=now_s() - 60) as client:
        assert (await client.inbox.next("token_expiring"))["data"]["inMs"] == 0
        assert await refused(client) == ("token_expired", 4009)


async def revoke(pair: Pair, user: str, session: str | None = None) -> None:
    revocation = Revocation(user_id=user, session=session, before=now_ms(), reason="logged out")
    await pair.broker.append(subjects.revoked(user), revocation.to_json(), msg_id=new_id())


async def test_w2_a_revoked_session_ends_on_every_edge_with_4010_and_other_sessions_stay(pair: Pair) -> None:
    user, session = someone(), new_id("s")
    async with (
        chat_client(pair.a, user, session=session) as here,
        chat_client(pair.b, user, session=session) as there,
        chat_client(pair.b, user) as other,
    ):
        began_ms = now_ms()
        await revoke(pair, user, session)

        assert await refused(here) == await refused(there) == ("session_revoked", 4010)
        assert now_ms() - began_ms < 2_000
        assert (await other.say("still here"))["duplicate"] is False


async def test_w2_a_revoked_user_cannot_come_back_with_an_old_token(pair: Pair) -> None:
    user = someone()
    headers = pair.a.headers(user)
    async with chat_client(pair.a, headers=headers) as client:
        await client.inbox.next("connected")
        await revoke(pair, user)
        await client.closed()
    for edge in (pair.a, pair.b):
        async with chat_client(edge, headers=headers) as client:
            assert await refused(client) == ("session_revoked", 4010)
