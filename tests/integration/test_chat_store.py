"""What somebody else does to the chat's store does not harm it."""

from __future__ import annotations

import nats

from shared.broker.provision import provision
from shared.contracts import subjects
from shared.contracts.ids import new_id
from tests.conftest import BrokerFactory
from tests.support.clients import chat_client
from tests.support.edges import Edges
from tests.support.nats_server import NatsServer


async def test_a_record_that_cannot_be_read_lets_nobody_in_and_hides_no_other_room(
    edges: Edges, broker: BrokerFactory
) -> None:
    edge, broken, sound = await edges.chat(), new_id("room-"), new_id("room-")
    headers = edge.headers(new_id("u"))
    await (await broker()).put(subjects.ROOMS, broken, value=b"not a record")
    await edge.http.post("/api/chat/rooms", json={"room": sound}, headers=headers)
    listed = await edge.http.get("/api/chat/rooms", headers=headers)
    history = await edge.http.get(f"/api/chat/rooms/{broken}/messages", headers=headers)

    assert sound in {room["room"] for room in listed.json()["rooms"]}
    assert history.status_code == 503


async def test_an_ack_names_the_life_of_the_stream_that_has_the_message(
    own_edges: Edges, nats_server: NatsServer
) -> None:
    edge = await own_edges.chat()
    async with chat_client(edge, new_id("u"), rooms=[new_id("room-")]) as client:
        before = [(await client.say(text))["cursor"] for text in ("one", "two")]
        operator = await nats.connect(nats_server.url)
        await operator.jetstream().delete_stream(subjects.CHAT)
        await operator.close()
        await provision(nats_server.url)
        after = (await client.say("three"))["cursor"]

    assert [cursor.partition(":")[2] for cursor in (*before, after)] == ["1", "2", "1"]
    assert after not in before
