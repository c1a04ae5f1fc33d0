"""One hundred messages a minute for a user, over all edges and both ways to send (requirement W7)."""

from __future__ import annotations

import asyncio

from shared.clock import now_ms
from shared.contracts.ids import new_id
from tests.support.clients import ChatClient, chat_client
from tests.support.edges import Edges

LIMIT = 100


def roomy_window_s() -> int:
    """Return a length of window, a minute or more, that began lately: no test runs over its end."""
    now_s = now_ms() // 1000
    return next(length for length in range(60, 3_600) if now_s % length < length // 3)


async def flood(client: ChatClient, count: int) -> list[str]:
    """Send messages without waiting; return what each was answered."""
    ids = [new_id() for _ in range(count)]
    for number, given in enumerate(ids):
        await client.send("send_message", {"content": str(number)}, id=given)
    kinds = []
    for given in ids:
        await client.inbox.until(lambda inbox, given=given: any(frame.get("id") == given for frame in inbox.frames))  # type: ignore[misc]
        kinds.append(next(frame["type"] for frame in client.inbox.frames if frame.get("id") == given))
    return kinds


async def test_w7_the_hundred_and_first_message_over_two_edges_is_refused_and_the_connection_stays(
    edges: Edges,
) -> None:
    window = roomy_window_s()
    a, b = await edges.chat(message_window_s=window), await edges.chat(message_window_s=window)
    user, room = new_id("user-"), new_id("room-")
    async with chat_client(a, user, rooms=[room]) as here, chat_client(b, user, rooms=[room]) as there:
        answers = await asyncio.gather(flood(here, 40), flood(there, 40))
        assert list(answers) == [["ack"] * 40] * 2
        headers, body = a.headers(user), {"content": "by http", "room": room}
        # An edge may have counted a few in advance, so the last of the hundred are had at that edge only.
        by_http = [
            await edge.http.post("/api/chat/messages", json=body, headers=headers)
            for edge in (b, a)
            for _ in range(LIMIT - 80)
        ]
        assert [answer.status_code for answer in by_http].count(201) == LIMIT - 80

        for client in (here, there):
            await client.send("send_message", {"content": "one too many"}, id="x")
            refusal = (await client.inbox.next("error"))["data"]
            assert refusal["code"] == "rate_limited"
            assert refusal["retryable"] is True
            assert 0 < refusal["retryAfterMs"] <= 2 * window * 1000
            await client.send("ping")
            await client.inbox.next("pong")
        refused = await a.http.post("/api/chat/messages", json=body, headers=headers)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) * 1000 >= refused.json()["retryAfterMs"] > 0

    async with chat_client(a, new_id("user-"), rooms=[room]) as other:
        assert (await other.say("others are not limited"))["duplicate"] is False


async def test_w7_whoever_hammers_is_closed_with_4029(edges: Edges) -> None:
    window = roomy_window_s()
    edge = await edges.chat(message_limit=5, refused_before_close=10, message_window_s=window)
    async with chat_client(edge, new_id("user-")) as client:
        for number in range(5 + 30):
            await client.send("send_message", {"content": str(number)})

        assert await client.closed() == 4029
        assert len(client.inbox.of_type("ack")) == 5
        assert len(client.inbox.of_type("error")) == 10
        assert edge.count("rate_limit", outcome="refused") == 10


async def test_w7_there_is_room_again_when_the_refusal_said_so(edges: Edges) -> None:
    edge = await edges.chat(message_limit=2, message_window_s=1)
    async with chat_client(edge, new_id("user-")) as client:
        for number in range(3):
            await client.send("send_message", {"content": str(number)})
        wait_ms = (await client.inbox.next("error"))["data"]["retryAfterMs"]
        await asyncio.sleep(wait_ms / 1000)

        assert (await client.say("again"))["duplicate"] is False


async def test_limits_can_be_lifted_for_benchmarks(edges: Edges) -> None:
    edge = await edges.chat(FANFARE_LIMITS="off", message_limit=1)
    async with chat_client(edge, new_id("user-")) as client:
        assert await flood(client, 20) == ["ack"] * 20
