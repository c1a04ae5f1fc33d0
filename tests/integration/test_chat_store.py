"""What somebody else has put into the chat's store does not harm it."""

from __future__ import annotations

from shared.contracts import subjects
from shared.contracts.ids import new_id
from tests.conftest import BrokerFactory
from tests.support.edges import Edges


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
