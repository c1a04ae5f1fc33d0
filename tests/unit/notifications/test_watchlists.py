"""Watchlists: concurrent changes lose nothing, late news undoes nothing, lost news is read again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from services.notifications import watchlists as watchlists_module
from services.notifications.watchlists import NO_WATCHLIST, Watchlist, Watchlists
from shared.broker.memory import MemoryBroker, MemoryServer
from shared.broker.port import Message
from shared.contracts import subjects
from shared.errors import BadInput, Unavailable
from tests.support.price_board import settle
from tests.support.waiting import eventually


class Edge:
    """An edge that serves one user, and what it was told."""

    def __init__(self, server: MemoryServer) -> None:
        self.told: list[Watchlist] = []
        self.lists = Watchlists(MemoryBroker(server), on_change=self._on_change, users=lambda: ["u"], max_symbols=100)

    @property
    def newest(self) -> Watchlist:
        return max(self.told, key=lambda watchlist: watchlist.revision, default=NO_WATCHLIST)

    def _on_change(self, user: str, watchlist: Watchlist) -> None:
        assert user == "u"
        self.told.append(watchlist)


@asynccontextmanager
async def running(server: MemoryServer) -> AsyncIterator[Edge]:
    edge = Edge(server)
    await edge.lists.start()
    yield edge
    await edge.lists.close()


async def test_concurrent_changes_at_two_edges_lose_nothing() -> None:
    server = MemoryServer()
    async with running(server) as a, running(server) as b:
        wanted = {f"S{number}" for number in range(6)}
        turns = zip(sorted(wanted), [a, b] * 3, strict=True)
        await asyncio.gather(*(edge.lists.change("u", add=[symbol]) for symbol, edge in turns))
        await asyncio.gather(a.lists.change("u", remove=["S0"]), b.lists.change("u", add=["S9"]))
        await settle()

        expected = (wanted - {"S0"}) | {"S9"}
        assert (await a.lists.get("u")).symbols == expected
        assert a.newest == b.newest == await a.lists.get("u")


async def test_those_who_come_together_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    server, reads, told = MemoryServer(), [], {}
    read_last = MemoryBroker.read_last

    async def counted(broker: MemoryBroker, stream: str, keys: Sequence[str]) -> list[Message]:
        reads.append(len(keys))
        return await read_last(broker, stream, keys)

    monkeypatch.setattr(MemoryBroker, "read_last", counted)
    lists = Watchlists(MemoryBroker(server), on_change=told.__setitem__, users=list, max_symbols=9)
    for number in range(20):
        await lists.change(f"u{number}", add=[f"S{number}"])
    told.clear()
    for number in range(20):
        lists.follow(f"u{number}")
    async with asyncio.timeout(5):
        while len(told) < 20:
            await asyncio.sleep(0)
    await lists.close()

    assert reads == [20]
    assert told["u7"].symbols == {"S7"}


async def test_who_comes_right_after_a_change_has_it_although_a_replica_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = MemoryServer()
    async with running(server) as edge, running(server) as other:
        await other.lists.change("u", add=["A"])
        await settle()
        edge.told.clear()

        async def stale(_broker: MemoryBroker, _stream: str, _keys: Sequence[str]) -> list[Message]:
            return []

        monkeypatch.setattr(MemoryBroker, "read_last", stale)
        edge.lists.follow("u")

        assert edge.newest.symbols == {"A"}


async def test_one_whose_watchlist_could_not_be_read_is_read_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server, read_last = MemoryServer(), MemoryBroker.read_last
    refused = iter([Unavailable()])
    async with running(server) as edge, running(server) as other:
        await other.lists.change("u", add=["A"])
        await settle()
        edge.lists._lately_changed.clear()
        edge.told.clear()

        async def refused_once(broker: MemoryBroker, stream: str, keys: Sequence[str]) -> list[Message]:
            for error in refused:
                raise error
            return await read_last(broker, stream, keys)

        monkeypatch.setattr(MemoryBroker, "read_last", refused_once)
        edge.lists.follow("u")
        async with asyncio.timeout(5):
            while not edge.told:
                await asyncio.sleep(0)

        assert edge.newest.symbols == {"A"}


async def test_a_change_is_told_at_every_edge_with_its_revision() -> None:
    server = MemoryServer()
    async with running(server) as a, running(server) as b:
        await a.lists.change("u", add=["A"])
        await a.lists.change("u", add=["B"])
        await settle()

        assert [watchlist.symbols for watchlist in b.told] == [{"A"}, {"A", "B"}]
        assert b.told[0].revision < b.told[1].revision


async def test_no_change_is_no_write() -> None:
    server = MemoryServer()
    async with running(server) as edge:
        await edge.lists.change("u", add=["A"])
        before = await edge.lists.get("u")

        assert await edge.lists.change("u", add=["A"], remove=["B"]) == {"A"}
        assert await edge.lists.get("u") == before


async def test_a_watchlist_over_its_limit_is_refused_and_stays_as_it_was() -> None:
    async with running(MemoryServer()) as edge:
        await edge.lists.change("u", add=[f"S{number}" for number in range(100)])

        with pytest.raises(BadInput, match="at most 100"):
            await edge.lists.change("u", add=["ONE_MORE"])
        assert len((await edge.lists.get("u")).symbols) == 100


async def test_a_change_that_was_made_while_the_link_was_down_is_read_again() -> None:
    server = MemoryServer()
    async with running(server) as edge:
        await settle()
        stream = server.stream(subjects.bucket_stream(subjects.WATCHLISTS))
        stream.republish = False  # its live repeat is lost
        server.store(stream, subjects.bucket_key(subjects.WATCHLISTS, "u"), b'{"symbols":["A"]}', {})
        await settle()
        assert edge.told == []
        server.start()
        await settle()

        assert edge.newest.symbols == {"A"}


@pytest.mark.parametrize("garbage", [b"", b"not json", b"[]", b"{}", b'{"symbols":"A"}', b'{"symbols":[["A"]]}'])
async def test_one_that_cannot_be_read_is_empty_and_harms_nobody_else(
    garbage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchlists_module, "RECONCILE_S", 0.01)
    server, told = MemoryServer(), dict[str, Watchlist]()
    lists = Watchlists(
        MemoryBroker(server), on_change=told.__setitem__, users=lambda: ["broken", "fine"], max_symbols=100
    )
    stream = server.stream(subjects.bucket_stream(subjects.WATCHLISTS))
    stream.republish = False
    server.store(stream, subjects.bucket_key(subjects.WATCHLISTS, "broken"), garbage, {})
    server.store(stream, subjects.bucket_key(subjects.WATCHLISTS, "fine"), b'{"symbols":["A"]}', {})
    await lists.start()
    await eventually(lambda: "fine" in told, deadline_s=3)
    assert told["fine"].symbols == {"A"}

    assert await lists.change("broken", add=["B"]) == {"B"}
    assert (await lists.get("broken")).symbols == {"B"}
    await lists.close()
