"""Read markers go forward only, cost what they must, and outlive the stream that they point into."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chat import markers as markers_module
from services.chat.markers import MAX_MARKERS, ReadMarkers, merged
from services.chat.reading import Reading
from shared.auth.principal import Principal
from shared.broker.memory import MemoryBroker, MemoryServer
from shared.broker.port import Entry
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.ids import new_id
from shared.errors import BadInput, Unavailable
from shared.telemetry.metrics import Metrics

ANN = Principal("ann", "ann", "s", frozenset(), 2_000_000_000, 0)

moves = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1), st.integers(0, 20)), min_size=1, max_size=30)
"""Rooms, edges, and how far each has been read there."""


class FarBroker(MemoryBroker):
    """A broker that takes a turn of the loop to answer, as a real one does, and counts what it is asked to store."""

    puts = 0

    async def get(self, bucket: str, *tokens: str) -> Entry | None:
        await asyncio.sleep(0)
        return await super().get(bucket, *tokens)

    async def put(
        self, bucket: str, *tokens: str, value: bytes, expect: int | None = None, ttl_s: int | None = None
    ) -> int:
        self.puts += 1
        await asyncio.sleep(0)
        return await super().put(bucket, *tokens, value=value, expect=expect, ttl_s=ttl_s)


@pytest.fixture(autouse=True)
def _retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markers_module, "RETRY_WITHIN_S", 0)


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def broker(server: MemoryServer) -> FarBroker:
    return FarBroker(server)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def reading(broker: FarBroker, metrics: Metrics) -> Reading:
    async def admit(_user: Principal, _room: str) -> None:
        """All rooms are open."""

    return Reading(broker, "edge", admit=admit, sessions_of=lambda _user: [], metrics=metrics)


@settings(max_examples=50)
@given(moves)
def test_whatever_edges_ask_for_at_once_a_marker_ends_at_the_furthest(asked: list[tuple[str, int, int]]) -> None:
    async def race() -> tuple[list[int], dict[str, Position]]:
        server = MemoryServer()
        edges = [ReadMarkers(FarBroker(server), Metrics()) for _ in range(2)]
        answers = await asyncio.gather(*(edges[e].advance("ann", room, Position("e", seq)) for room, e, seq in asked))
        return [moved.position.seq for moved in answers], dict(await edges[0].of_user("ann"))

    answers, stored = asyncio.run(race())

    assert stored == {
        room: Position("e", max(seq for other, _, seq in asked if other == room))
        for room in {room for room, *_ in asked}
    }
    assert all(answered >= seq for answered, (_, _, seq) in zip(answers, asked, strict=True))


async def test_a_hundred_marks_at_once_are_two_writes(broker: FarBroker, metrics: Metrics) -> None:
    markers = ReadMarkers(broker, metrics)

    moved = await asyncio.gather(*(markers.advance("ann", f"r{n % 5}", Position("e", n)) for n in range(100)))

    assert broker.puts == 2
    assert {str(answer.position) for answer in moved[5:]} == {f"e:{n}" for n in range(95, 100)}
    assert sum(answer.anew for answer in moved) == 6, "each room's furthest, and the one that was written alone"


async def test_a_mark_that_is_behind_writes_nothing(broker: FarBroker, metrics: Metrics) -> None:
    markers = ReadMarkers(broker, metrics)
    await markers.advance("ann", "r", Position("e", 9))

    answer = await markers.advance("ann", "r", Position("e", 3))

    assert (answer.position.seq, answer.anew, broker.puts) == (9, False, 1)


async def test_while_nobody_can_store_all_who_wait_are_told_and_the_next_is_stored(
    broker: FarBroker, server: MemoryServer, metrics: Metrics
) -> None:
    markers = ReadMarkers(broker, metrics)
    server.stop()
    answers = await asyncio.gather(
        *(markers.advance("ann", "r", Position("e", n)) for n in range(5)), return_exceptions=True
    )
    server.up = True

    assert [type(answer) for answer in answers] == [Unavailable] * 5
    assert (await markers.advance("ann", "r", Position("e", 1))).anew


async def test_one_who_gives_up_waiting_takes_the_mark_from_nobody(broker: FarBroker, metrics: Metrics) -> None:
    markers = ReadMarkers(broker, metrics)
    first, second, third = (asyncio.ensure_future(markers.advance("ann", "r", Position("e", seq))) for seq in (1, 2, 3))
    await asyncio.sleep(0)
    second.cancel()

    assert (await first).position.seq == 1
    assert (await third).position.seq == 3


async def test_of_too_many_markers_those_moved_longest_ago_go_and_that_is_counted(
    broker: FarBroker, metrics: Metrics
) -> None:
    markers = ReadMarkers(broker, metrics)
    for number in range(MAX_MARKERS):
        await markers.advance("ann", f"r{number}", Position("e", 1))
    await markers.advance("ann", "r0", Position("e", 2))
    await markers.advance("ann", "one-more", Position("e", 1))
    kept = await markers.of_user("ann")

    assert len(kept) == MAX_MARKERS
    assert {"r0", "r2", "one-more"} <= kept.keys()
    assert "r1" not in kept
    assert metrics.registry.get_sample_value("fanfare_read_markers_dropped_total") == 1


def test_the_largest_record_fits_into_a_key() -> None:
    fullest = merged({}, {f"{n:064}": Position("x" * 16, 10**19 - 1) for n in range(MAX_MARKERS)})
    record = markers_module.MarkerRecord(rooms={room: str(position) for room, position in fullest.items()})

    assert len(record.to_json()) < 32 * 1024


async def test_markers_that_cannot_be_read_are_not_overwritten(broker: FarBroker, metrics: Metrics) -> None:
    await broker.put(subjects.MARKERS, "ann", value=b'{"rooms":{"r":"nonsense"}}')

    with pytest.raises(Unavailable):
        await ReadMarkers(broker, metrics).advance("ann", "r", Position("e", 1))
    entry = await broker.get(subjects.MARKERS, "ann")
    assert entry is not None
    assert b"nonsense" in entry.value


async def test_after_the_stream_was_made_anew_all_that_is_kept_is_unread_until_it_is_marked(
    reading: Reading, broker: FarBroker, server: MemoryServer
) -> None:
    say = _sayer(broker)
    for _ in range(5):
        await say()
    old = await reading.mark(ANN, "r", None)
    server.recreate(subjects.CHAT)
    for _ in range(3):
        await say()
    (entry,) = await reading.unread(ANN)

    assert entry == {"room": "r", "cursor": old["cursor"], "unread": 3}
    with pytest.raises(BadInput):
        await reading.mark(ANN, "r", old["cursor"])
    assert (await reading.mark(ANN, "r", None))["unread"] == 0
    assert (await reading.unread(ANN))[0]["unread"] == 0


async def test_whoever_asks_about_many_rooms_pays_for_more_than_one_call(
    reading: Reading, broker: FarBroker, metrics: Metrics
) -> None:
    markers, paid = ReadMarkers(broker, metrics), []
    for number in range(45):
        await markers.advance("ann", f"r{number}", Position("e", 1))

    assert len(await reading.unread(ANN, pay=lambda: paid.append(1))) == 45
    assert len(paid) == 2


def _sayer(broker: MemoryBroker) -> Callable[[], object]:
    return lambda: broker.append(subjects.chat_message("r"), b"x", msg_id=new_id())
