"""Who may open a stream, for how long, and what of it they see (requirements S5 and S6)."""

from __future__ import annotations

import asyncio
import signal

import httpx
import jwt
import pytest

from shared.broker.jetstream import JetStreamBroker
from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.claims import USER_SCOPES
from shared.contracts.events import Revocation
from shared.contracts.ids import new_id
from tests.conftest import BrokerFactory
from tests.support.clients import stream_client
from tests.support.edges import Edge, Edges, both_engines
from tests.support.producer import Producer


async def status(edge: Edge, headers: dict[str, str] | None = None, **query: str) -> int:
    """Return the status with which a stream is answered."""
    async with edge.http.stream("GET", "/api/stream", headers=headers, params=query) as response:
        return response.status_code


async def revoke(broker: JetStreamBroker, user: str, session: str | None = None) -> None:
    revocation = Revocation(user_id=user, session=session, before=now_ms() + 1000, reason="because")
    await broker.append(subjects.revoked(user), revocation.to_json(), msg_id=new_id())


# -- who comes in -----------------------------------------------------------------------------------------------------


@both_engines
async def test_s5_a_cookie_a_header_a_ticket_and_the_articles_token_open_a_stream(edges: Edges) -> None:
    edge = await edges.notifications()
    token = edge.mint.token("u")

    assert await status(edge, {"cookie": f"auth_token={token}"}) == 200
    assert await status(edge, {"authorization": f"Bearer {token}"}) == 200
    assert await status(edge, ticket=edge.mint.ticket("u")) == 200
    assert await status(edge, token=token) == 200


async def test_s5_a_ticket_opens_one_stream_on_any_edge(edges: Edges) -> None:
    a, b = await edges.notifications(), await edges.notifications()
    ticket = a.mint.ticket("u")
    statuses = await asyncio.gather(*(status(edge, ticket=ticket) for edge in (a, b, a, b)))

    assert sorted(statuses) == [200, 401, 401, 401]


async def test_s5_without_a_credential_that_holds_the_stream_does_not_start(edges: Edges) -> None:
    edge, mint = await edges.notifications(), edges.mint
    stranger = type(mint)()
    unsigned = jwt.encode(jwt.decode(mint.token("u"), options={"verify_signature": False}), "", algorithm="none")
    tokens = {
        "nonsense": "x.y.z",
        "long": "x" * 10_000,
        "of another issuer's key": stranger.token("u"),
        "unsigned": unsigned,
        "expired": mint.token("u", ttl_s=-120),
        "of another issuer": mint.token("u", iss="other"),
        "for another audience": mint.token("u", aud="other"),
        "a ticket as a token": mint.ticket("u"),
        "with a subject that is no id": mint.token("a.*.>"),
    }
    for kind, token in tokens.items():
        for headers, query in (({"authorization": f"Bearer {token}"}, {}), ({}, {"token": token})):
            refused = await edge.http.get("/api/stream", headers=headers, params=query)
            assert refused.status_code == 401, kind
            assert refused.headers["content-type"] == "application/problem+json"
            assert "www-authenticate" in refused.headers
            assert refused.json()["code"] == ("token_expired" if kind == "expired" else "unauthorized"), kind
    assert await status(edge) == 401
    assert await status(edge, {"cookie": "auth_token="}, token="") == 401
    assert await status(edge, ticket=mint.token("u")) == 401


async def test_s5_a_page_of_another_origin_opens_no_stream(edges: Edges) -> None:
    edge = await edges.notifications(allowed_origins=["https://app.example.com"])
    cookie = {"cookie": f"auth_token={edge.mint.token('u')}"}

    assert await status(edge, cookie | {"origin": "https://evil.example"}) == 403
    assert await status(edge, cookie | {"origin": "null"}) == 403
    assert await status(edge, cookie | {"sec-fetch-site": "cross-site"}) == 403
    assert await status(edge, {"origin": "https://evil.example"}, token=edge.mint.token("u")) == 403
    assert await status(edge, cookie | {"origin": "https://app.example.com"}) == 200
    assert await status(edge, cookie | {"origin": edge.url}) == 200
    posted = await edge.http.post(
        "/api/stocks/subscribe", json={"symbols": ["A"]}, headers=cookie | {"origin": "https://evil.example"}
    )
    assert posted.status_code == 403


async def test_s5_no_token_and_no_ticket_is_logged(edges: Edges) -> None:
    edge = await edges.process("notifications", LOG_LEVEL="debug")
    token, ticket, expired = edge.mint.token("u"), edge.mint.ticket("u"), edge.mint.token("u", ttl_s=-120)
    assert await status(edge, {"authorization": f"Bearer {token}"}) == 200
    assert await status(edge, {"cookie": f"auth_token={token}"}) == 200
    assert await status(edge, token=token) == 200
    assert await status(edge, ticket=ticket) == 200
    assert await status(edge, token=expired) == 401
    assert await status(edge, {"cookie": f"auth_token={token}"}, token=token, last_event_id="x" * 3000) == 400
    renewal = await edge.http.post("/api/stream/a.b/token", json={"token": token}, headers=edge.headers("u"))
    assert renewal.status_code == 410
    edge.signal(signal.SIGTERM)
    await edge.process.wait()
    log = edge.log.read_text()

    assert log.count("/api/stream") >= 7
    for secret in (token, ticket, expired):
        for part in secret.split(".")[1:]:
            assert part not in log


# -- what they see ----------------------------------------------------------------------------------------------------


async def test_s6_a_stream_needs_its_scope_and_a_topic_needs_its_own(edges: Edges, producer: Producer) -> None:
    edge, topic = await edges.notifications(), new_id("t")

    assert await status(edge, edge.headers("u", scope="chat")) == 403
    assert await status(edge, edge.headers("u", scope="stream"), topics=topic) == 403
    assert await status(edge, edge.headers("u", scope="stream topic:other"), topics=f"other,{topic}") == 403
    assert await status(edge, edge.headers("u", scope="stream"), topics="a.*") == 400
    assert await status(edge, edge.headers("u"), topics=",".join(f"t{n}" for n in range(21))) == 400
    async with stream_client(edge, "u", scope=f"stream topic:{topic}", topics=topic) as client:
        await producer.notify(f"notify.topic.{topic}", "hi")
        assert (await client.next("notification"))["topic"] == topic


async def test_s6_nobody_gets_anothers_notifications(edges: Edges, producer: Producer) -> None:
    edge, alice, bob = await edges.notifications(), new_id("u"), new_id("u")
    async with stream_client(edge, alice) as hers, stream_client(edge, bob) as his:
        await producer.notify(f"notify.user.{alice}", "for alice")
        await producer.notify(f"notify.user.{bob}", "for bob")
        await his.next("notification")
        await hers.next("notification")

        assert [frame["title"] for frame in hers.inbox.of_type("notification")] == ["for alice"]
        assert [frame["title"] for frame in his.inbox.of_type("notification")] == ["for bob"]


async def test_s6_system_status_is_for_those_who_may_read_it(edges: Edges, producer: Producer) -> None:
    edge, user, part = await edges.notifications(), new_id("u"), new_id("part")
    await producer.beat(part)
    async with stream_client(edge, user) as client, stream_client(edge, "ops", scope="stream ops:read") as ops:
        await producer.beat(part, status="degraded")
        await ops.next("system_status", lambda frame: frame["status"] == "degraded")
        await producer.notify(f"notify.user.{user}", "later")
        await client.next("notification")

        assert client.inbox.of_type("system_status") == []


async def test_s6_notifying_others_needs_its_scope(edges: Edges) -> None:
    edge = await edges.notifications()
    body = {"to": {"user": "u"}, "title": "hi"}
    refused = await edge.http.post("/api/notifications", json=body, headers=edge.headers("u"))
    taken = await edge.http.post("/api/notifications", json=body, headers=edge.headers("p", scope="notify:write"))

    assert (refused.status_code, taken.status_code) == (403, 201)


# -- for how long -----------------------------------------------------------------------------------------------------


@both_engines
async def test_s5_a_stream_warns_before_its_token_expires_and_ends_then(edges: Edges) -> None:
    edge = await edges.notifications(expiry_warning_s=3.0)
    async with stream_client(edge, "u", ttl_s=4) as client:
        warning = await client.next("token_expiring")
        error = await client.next("error")
        await client.ended()

    assert 0 < warning["inMs"] <= 3000
    assert (error["code"], error["retryable"]) == ("token_expired", False)


async def test_s5_a_fresh_token_posted_at_any_edge_keeps_a_stream_past_its_first_expiry(
    edges: Edges, producer: Producer
) -> None:
    a, b, user = await edges.notifications(expiry_warning_s=3.0), await edges.notifications(), new_id("u")
    async with stream_client(a, user, ttl_s=4) as client, stream_client(a, user, ttl_s=4) as left_alone:
        stream = client.inbox.frames[0]["stream"]
        await client.next("token_expiring")
        answer = await b.http.post(
            f"/api/stream/{stream}/token", json={"token": b.mint.token(user)}, headers=b.headers(user)
        )
        assert answer.status_code == 200
        assert answer.json()["expiresAt"] > now_ms() + 60_000
        await left_alone.ended()
        await producer.notify(f"notify.user.{user}", "still here")

        assert (await client.next("notification"))["title"] == "still here"


async def test_s6_a_token_that_could_not_have_opened_a_stream_does_not_renew_it(edges: Edges) -> None:
    edge, user = await edges.notifications(), new_id("u")
    async with stream_client(edge, user, topics="news") as client:
        stream = client.inbox.frames[0]["stream"]

        async def renew(token: str) -> httpx.Response:
            return await edge.http.post(
                f"/api/stream/{stream}/token", json={"token": token}, headers=edge.headers(user)
            )

        answers = {
            "of another user": (await renew(edge.mint.token("other")), 401, "unauthorized"),
            "expired": (await renew(edge.mint.token(user, ttl_s=-120)), 401, "token_expired"),
            "nonsense": (await renew("nonsense"), 401, "unauthorized"),
            "without the topic": (await renew(edge.mint.token(user, scope="stream")), 403, "forbidden"),
            "without streams": (await renew(edge.mint.token(user, scope="topic:*")), 403, "forbidden"),
        }
        for kind, (answer, expected, code) in answers.items():
            assert (answer.status_code, answer.json()["code"]) == (expected, code), kind


async def test_s6_a_renewed_token_without_the_right_ends_the_status(edges: Edges, producer: Producer) -> None:
    edge, user, part = await edges.notifications(), new_id("u"), new_id("part")
    async with stream_client(edge, user, scope=f"{USER_SCOPES} ops:read") as client:
        await producer.beat(part)
        await client.next("system_status", lambda frame: frame["component"] == part)
        await edge.http.post(
            f"/api/stream/{client.inbox.frames[0]['stream']}/token",
            json={"token": edge.mint.token(user)},
            headers=edge.headers(user),
        )
        await producer.beat(part, "later")
        await producer.notify(f"notify.user.{user}", "later")
        await client.next("notification")

        assert "later" not in [frame["instance"] for frame in client.inbox.of_type("system_status")]


@both_engines
@pytest.mark.parametrize("whole_user", [False, True])
async def test_s5_a_revoked_session_ends_on_every_edge_within_a_second(
    edges: Edges, broker: BrokerFactory, whole_user: bool
) -> None:
    a, b, user, bus = await edges.notifications(), await edges.notifications(), new_id("u"), await broker()
    async with (
        stream_client(a, user, session="phone") as phone_a,
        stream_client(b, user, session="phone") as phone_b,
        stream_client(b, user, session="laptop") as laptop,
    ):
        ending = [phone_a, phone_b] + ([laptop] if whole_user else [])
        async with asyncio.timeout(1):
            await revoke(bus, user, None if whole_user else "phone")
            for client in ending:
                assert (await client.next("error"))["code"] == "session_revoked"
        for client in ending:
            await client.ended()

        assert laptop.inbox.ended == whole_user
    assert await status(b, b.headers(user, session="phone")) == 401


@both_engines
async def test_a_user_and_an_edge_have_a_cap(edges: Edges) -> None:
    edge, user = await edges.notifications(max_streams_per_user=2, max_streams=3), new_id("u")
    async with stream_client(edge, user), stream_client(edge, user):
        refused = await edge.http.get("/api/stream", headers=edge.headers(user))
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        async with stream_client(edge, "other"):
            assert await status(edge, edge.headers("third")) == 429
    async with asyncio.timeout(5):
        while edge.gauge("sessions", transport="sse"):
            await asyncio.sleep(0.01)
    async with stream_client(edge, user):
        assert edge.count("sessions_refused", transport="sse", cap="user") == 1


@both_engines
async def test_a_client_that_leaves_at_once_leaves_nothing_behind(edges: Edges) -> None:
    edge = await edges.notifications(max_streams_per_user=0)
    address = httpx.URL(edge.url)
    request = f"GET /api/stream HTTP/1.1\r\nhost: x\r\nauthorization: {edge.headers('u')['authorization']}\r\n\r\n"
    for _ in range(40):
        _, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(request.encode())
        await writer.drain()
        writer.transport.abort()
    head = await edge.http.head("/api/stream", headers=edge.headers("u"))
    async with stream_client(edge, "u"), asyncio.timeout(5):
        while edge.gauge("sessions", transport="sse") != 1:
            await asyncio.sleep(0.01)

    assert head.status_code == 405
