"""Producers outside the suite: what they publish with plain NATS, and what becomes of what is not valid."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from shared.contracts.ids import new_id
from tests.support.clients import stream_client
from tests.support.edges import Edge, Edges
from tests.support.producer import Producer


async def post(edge: Edge, **body: object) -> httpx.Response:
    return await edge.http.post("/api/notifications", json=body, headers=edge.headers("p", scope="notify:write"))


async def test_a_plain_nats_publish_reaches_a_user_and_a_topic_at_every_edge(edges: Edges, producer: Producer) -> None:
    a, b, user, topic = await edges.notifications(), await edges.notifications(), new_id("u"), new_id("t")
    async with stream_client(a, user, topics=topic) as one, stream_client(b, user, topics=topic) as other:
        await producer.publish(
            f"notify.user.{user}", {"title": "hi", "body": "there", "data": {"a": [1, None, "é\u2028"]}}
        )
        await producer.publish(f"notify.topic.{topic}", {"title": "all"})
        for client in (one, other):
            mine = await client.next("notification", lambda frame: frame["title"] == "hi")
            ours = await client.next("notification", lambda frame: frame["title"] == "all")
            assert (mine["body"], mine["data"], "topic" in mine) == ("there", {"a": [1, None, "é\u2028"]}, False)
            assert ours["topic"] == topic
            assert mine["id"]
            assert mine["createdAt"]
        assert one.inbox.of_type("notification") == other.inbox.of_type("notification")


@pytest.mark.parametrize(
    "data",
    ['{"a":' * deep + "1" + "}" * deep for deep in (210, 300, 900)] + ['{"a":"\\ud800"}'],
    ids=["for edges", "for us", "for Python", "surrogate"],
)
async def test_what_no_edge_could_deliver_is_refused_and_not_stored(edges: Edges, data: str) -> None:
    """It was taken with 201 and became a dead letter, or was answered with 500."""
    edge, user = await edges.notifications(), new_id("u")
    body = f'{{"to":{{"user":"{user}"}},"title":"t","data":{data}}}'
    headers = edge.headers("p", scope="notify:write") | {"content-type": "application/json"}
    answer = await edge.http.post("/api/notifications", content=body, headers=headers)
    stored = (await edge.http.get("/api/notifications", headers=edge.headers(user))).json()

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_input")
    assert stored["notifications"] == []


async def test_a_payload_that_is_not_valid_is_dead_lettered_once_and_the_stream_goes_on(
    edges: Edges, producer: Producer
) -> None:
    a, b, user, symbol = await edges.notifications(), await edges.notifications(), new_id("u"), new_id("S")
    subject = f"notify.user.{user}"
    async with (
        stream_client(a, user, symbols=symbol) as one,
        stream_client(b, user, symbols=symbol) as other,
    ):
        await producer.publish(subject, b"\xff\x00 no JSON \r\n")
        await producer.publish(subject, {"body": "no title"})
        await producer.publish(f"prices.{symbol}", {"symbol": symbol, "price": "free", "timestamp": 1})
        await producer.publish(f"status.{symbol}.one", {"status": "fine"})
        await producer.tick(symbol, 5)
        await producer.notify(subject, "valid")
        for client in (one, other):
            assert (await client.next("notification"))["title"] == "valid"
            assert (await client.next("price_update"))["price"] == 5
        async with asyncio.timeout(5):
            while sum(edge.count("dead_letters", kind="notify", kept="yes") for edge in (a, b)) < 4:
                await asyncio.sleep(0.01)
        bad = await producer.dead_letters(subject)
        prices = await producer.dead_letters(f"prices.{symbol}")
        statuses = await producer.dead_letters(f"status.{symbol}.one")

    assert [message.data for message in bad] == [b"\xff\x00 no JSON \r\n", b'{"body": "no title"}']
    assert all("not a notification" in (message.headers or {})["Fanfare-Reason"] for message in bad)
    assert [(message.headers or {})["Fanfare-Reason"][:11] for message in prices + statuses] == [
        "not a price",
        "not a statu",
    ]


async def test_a_hostile_producers_subjects_and_headers_hurt_nobody(edges: Edges, producer: Producer) -> None:
    edge, user = await edges.notifications(), new_id("u")
    headers = {"Nats-Sequence": "999999999", "Nats-Last-Sequence": "999999998", "Nats-Subject": "notify.user.root"}
    payload = json.dumps({"title": "spoofed"}).encode()
    async with stream_client(edge, user) as client:
        for subject in ("prices.*", "prices.é", "status.*.>", "notify.user.*", "notify.topic.a$b"):
            await producer.publish(subject, b"{}")
        async with asyncio.timeout(5):
            while not await producer.dead_letters("prices._"):
                await asyncio.sleep(0.01)
        await producer.js.publish(f"notify.user.{user}", payload, headers=headers)
        await producer.notify(f"notify.user.{user}", "after")
        await client.next("notification", lambda frame: frame["title"] == "after")

        assert [frame["title"] for frame in client.inbox.of_type("notification")] == ["spoofed", "after"]
        assert int(client.last_id.partition(":")[2]) < 999_999
    assert (await edge.http.get("/readyz")).status_code == 200


async def test_a_post_is_stored_once_for_its_id_and_arrives_once(edges: Edges) -> None:
    a, b, user = await edges.notifications(), await edges.notifications(), new_id("u")
    notice = {"to": {"user": user}, "id": new_id("n"), "title": "once"}
    async with stream_client(b, user) as client:
        first, again = await post(a, **notice), await post(b, **notice)
        await post(a, to={"user": user}, title="end")
        await client.next("notification", lambda frame: frame["title"] == "end")

        assert (first.status_code, again.status_code) == (201, 201)
        assert again.json() == first.json() | {"duplicate": True}
        assert [frame["title"] for frame in client.inbox.of_type("notification")] == ["once", "end"]
        assert client.inbox.of_type("notification")[0]["_id"] == first.json()["cursor"]


async def test_what_is_no_notification_is_refused_at_the_door(edges: Edges) -> None:
    edge, to = await edges.notifications(), {"user": "u"}
    hostile: list[dict[str, object]] = [
        {},
        {"to": to},
        {"to": to, "title": ""},
        {"to": to, "title": "x" * 257},
        {"to": to, "title": "x", "body": "x" * 4097},
        {"to": {}, "title": "x"},
        {"to": {"user": "u", "topic": "t"}, "title": "x"},
        {"to": {"user": "a.*"}, "title": "x"},
        {"to": {"topic": ">"}, "title": "x"},
        {"to": to, "title": "x", "id": "a b"},
        {"to": to, "title": "x", "data": []},
        {"to": to, "title": "x", "createdAt": -1},
    ]
    for body in hostile:
        assert (await post(edge, **body)).status_code == 400, body
    assert (await post(edge, to=to, title="x", data={"x": "y" * 70_000})).status_code == 413


async def test_history_pages_through_everything_and_hands_over_to_the_stream(edges: Edges, producer: Producer) -> None:
    edge, user = await edges.notifications(), new_id("u")
    subject = f"notify.user.{user}"
    wanted = await producer.notify(subject, *(str(number) for number in range(25)))
    await producer.store(subject, b"broken")

    async def page(**query: object) -> dict[str, object]:
        answer = await edge.http.get("/api/notifications", params=query, headers=edge.headers(user))  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found

    last = await page(limit=10)
    assert [each["title"] for each in last["notifications"]] == wanted[-9:]  # type: ignore[attr-defined]  # one is broken
    assert last["more"] is True
    got: list[str] = []
    epoch = str(last["cursor"]).partition(":")[0]
    cursor, more = f"{epoch}:0", True
    while more:
        found = await page(after=cursor, limit=10)
        got += [each["title"] for each in found["notifications"]]  # type: ignore[attr-defined]
        cursor, more = str(found["cursor"]), bool(found["more"])
    assert got == wanted
    await producer.notify(subject, "live")
    async with stream_client(edge, user, last_event_id=cursor) as client:
        assert (await client.next("notification"))["title"] == "live"
    for bad in ("x:y", "zzzz:1"):
        answer = await edge.http.get("/api/notifications", params={"after": bad}, headers=edge.headers(user))
        assert answer.status_code == 400


async def test_history_of_a_topic_is_for_who_may_follow_it_and_fills_its_gap(edges: Edges, producer: Producer) -> None:
    edge, topic = await edges.notifications(), new_id("t")
    wanted = await producer.notify(f"notify.topic.{topic}", *(str(number) for number in range(5)))
    await producer.notify(f"notify.topic.{new_id('t')}", "of another")

    async def page(scope: str, **query: object) -> httpx.Response:
        headers = edge.headers("u", scope=scope)
        return await edge.http.get("/api/notifications", params={"topic": topic} | query, headers=headers)  # type: ignore[arg-type]

    found = (await page(f"stream topic:{topic}")).json()
    assert [(each["title"], each["topic"]) for each in found["notifications"]] == [(title, topic) for title in wanted]
    epoch = found["cursor"].partition(":")[0]
    rest = (await page("stream topic:*", after=f"{epoch}:0", limit=3)).json()
    assert [each["title"] for each in rest["notifications"]] == wanted[:3]
    assert rest["more"] is True
    assert (await page("stream topic:other")).status_code == 403
    assert (await page("stream topic:*", topic="a.b")).status_code in {400, 422}
