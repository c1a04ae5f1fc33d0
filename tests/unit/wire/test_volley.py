"""What many are sent at once, each gets as if it were alone: free, full, leaving or gone; over real sockets."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import permutations

import pytest

from shared.edge.delivery.event import Event, Overflow
from shared.edge.delivery.overflow import OverflowLimits
from shared.edge.wire import volley
from shared.edge.wire.pool import Pool, write
from shared.edge.wire.ring import MAX_BYTES, SendRing, Short, Shot
from shared.edge.wire.sse import LAST_CHUNK, PooledNamedStream, PooledStream
from shared.edge.wire.volley import deliver_all, deliver_to_each
from shared.edge.wire.writer import PORTION_BYTES
from shared.telemetry.metrics import Metrics
from tests.support.pooled import open_ring, read_all
from tests.support.waiting import eventually

NEWS = Event("news", b'{"n":1}')
BURST = [Event("news", b'{"n":%d}' % number) for number in range(5)]
LARGE = Event("large", b'{"x":"%b"}' % (b"x" * 100_000))


class Ended:
    """A session that notes its end."""

    closed = False

    def close(self) -> None:
        self.closed = True


class Client:
    """A stream in a pool, and its peer."""

    def __init__(self, pool: Pool, kind: type[PooledStream], socket_type: int) -> None:
        here, self.peer = socket.socketpair(type=socket_type)
        for end in (here, self.peer):
            end.setblocking(False)
        self.edge = kind(pool, here.detach(), OverflowLimits())
        self.edge.session = self.session = Ended()
        pool.adopt(self.edge)

    def fill(self) -> None:
        """Have more written to it than its socket takes."""
        while self.edge.congestion is None:
            self.edge.deliver(LARGE)

    def read_all(self) -> bytes:
        return read_all(self.peer, self.edge)


class Watched(SendRing):
    """A ring that sees that nobody is sent to twice in one call, and counts them."""

    def __init__(self, ring: SendRing) -> None:
        self.__dict__ |= ring.__dict__
        self.calls = 0

    def send(self, shots: Iterable[Shot]) -> list[Short]:
        shots = list(shots)
        fds = [fd for fds, _ in shots for fd in fds if fd >= 0]
        assert len(fds) == len(set(fds))
        self.calls += 1
        return super().send(shots)


class Plain:
    """An outlet that is no connection of the pool."""

    def __init__(self) -> None:
        self.got: list[Event] = []

    def deliver(self, event: Event) -> None:
        self.got.append(event)


@pytest.fixture(params=["ring", "writes"])
async def enter(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Client]]:
    """Let clients into a pool with a ring, which takes even a single write, and into one without."""
    monkeypatch.setattr(volley, "WORTH_A_RING", 1)
    ring = Watched(open_ring()) if request.param == "ring" else None
    pool, clients = Pool(Metrics(), heartbeat_s=3600, ring=ring), []
    pool.start()

    def enter(kind: type[PooledStream] = PooledStream, socket_type: int = socket.SOCK_STREAM) -> Client:
        clients.append(Client(pool, kind, socket_type))
        return clients[-1]

    yield enter
    pool.close()
    for client in clients:
        client.peer.close()


async def test_each_gets_its_own_bytes_whatever_stands_before_it_in_the_list(enter: Callable[..., Client]) -> None:
    plain, named, unnamed = Plain(), enter(PooledNamedStream), enter()
    for order in permutations([plain, named.edge, unnamed.edge]):
        deliver_to_each(order, [NEWS])
        assert unnamed.read_all() == NEWS.sse_chunk
        assert named.read_all() == NEWS.named_chunk

    assert plain.got == [NEWS] * 6


async def test_one_that_was_full_has_it_behind_what_waits_and_once(enter: Callable[..., Client]) -> None:
    free, full = enter(), enter()
    full.fill()
    deliver_to_each([full.edge, free.edge], [NEWS])
    received = full.peer.recv(1 << 20)  # its socket has room again, which the edge does not know yet
    deliver_to_each([free.edge, full.edge], [NEWS])

    assert free.read_all() == 2 * NEWS.sse_chunk
    assert (received + full.read_all()).endswith(LARGE.sse_chunk + 2 * NEWS.sse_chunk)


async def test_one_that_becomes_full_by_it_gets_the_rest_later(enter: Callable[..., Client]) -> None:
    client = enter()
    sent = 0
    while client.edge.congestion is None:
        deliver_to_each([client.edge], [LARGE])
        sent += 1

    assert client.read_all() == sent * LARGE.sse_chunk


async def test_who_is_full_already_has_it_once_whoever_becomes_full_by_it(enter: Callable[..., Client]) -> None:
    full, filling, free = enter(), enter(), enter()
    full.fill()
    waiting = full.edge.congestion
    while write(filling.edge.fd, b"x" * 4096):
        pass
    deliver_to_each([full.edge, filling.edge, free.edge], [NEWS])

    assert full.edge.congestion is waiting
    assert [client.read_all().count(b'"n":1') for client in (full, filling, free)] == [1, 1, 1]


async def test_many_deliveries_reach_each_in_their_order(enter: Callable[..., Client]) -> None:
    """As rooms do that share members: nobody is written to twice in one system call."""
    both, other, named = enter(), enter(), enter(PooledNamedStream)
    full = enter()
    full.fill()
    for _ in range(20):
        everybody = [both.edge, other.edge, named.edge, full.edge]
        deliver_all(
            [([both.edge], BURST[:1]), (everybody, BURST[1:2]), ([other.edge], BURST[2:3]), (everybody, BURST[3:])]
        )

    def numbers(client: Client) -> list[int]:
        return [int(n) for n in re.findall(rb'"n":(\d)', client.read_all())]

    assert numbers(both) == 20 * [0, 1, 3, 4]
    assert numbers(other) == 20 * [1, 2, 3, 4]
    assert numbers(named) == numbers(full) == 20 * [1, 3, 4]


async def test_two_deliveries_to_one_whose_room_ends_amid_the_first_are_not_torn(enter: Callable[..., Client]) -> None:
    client, others = enter(), [enter() for _ in range(4)]
    edges = [client.edge, *(other.edge for other in others)]
    for _ in range(8):
        deliver_all([(edges, [LARGE]), (edges, [NEWS])])

    assert client.edge.congestion is not None
    assert {each.read_all() for each in (client, *others)} == {8 * (LARGE.sse_chunk + NEWS.sse_chunk)}


async def test_rooms_go_out_together_and_whoever_is_in_two_of_them_begins_another_call(
    enter: Callable[..., Client],
) -> None:
    clients = [enter() for _ in range(4)]
    a, b, c, d = (client.edge for client in clients)
    ring, calls = a.pool.ring, []
    together, again, last = [[a], [b, c], [d]], [[a], [b], [a], [b]], [[a], [b], [c], [b]]
    for rooms in (together, again, last, [[a, b], [c, d], [a, d]]):
        before = ring.calls if isinstance(ring, Watched) else 0
        deliver_all([(room, [NEWS]) for room in rooms])
        calls.append(ring.calls - before if isinstance(ring, Watched) else 0)

    assert calls in ([1, 2, 2, 2], [0, 0, 0, 0])
    assert [client.read_all().count(b'"n":1') for client in clients] == [6, 6, 3, 3]


async def test_whoever_has_no_room_in_a_later_room_gets_what_was_said_there(enter: Callable[..., Client]) -> None:
    first, second, third, full = (enter() for _ in range(4))
    while write(full.edge.fd, b"x" * 4096):
        pass
    deliver_all([([first.edge], BURST[:1]), ([second.edge, third.edge, full.edge], BURST[1:])])

    assert full.read_all().endswith(b"".join(each.sse_chunk for each in BURST[1:]))
    assert first.read_all() == BURST[0].sse_chunk


async def test_what_is_too_large_for_the_ring_is_written_all_the_same(enter: Callable[..., Client]) -> None:
    clients = [enter() for _ in range(3)]
    huge = Event("huge", b'{"x":"%b"}' % (b"x" * MAX_BYTES))
    deliver_all([([client.edge for client in clients], [huge]), ([client.edge for client in clients], [NEWS])])

    assert {client.read_all() for client in clients} == {huge.sse_chunk + NEWS.sse_chunk}


async def test_what_belongs_together_is_one_write_to_each_whatever_its_bytes(enter: Callable[..., Client]) -> None:
    unnamed, named = (enter(kind, socket.SOCK_SEQPACKET) for kind in (PooledStream, PooledNamedStream))
    deliver_to_each([unnamed.edge, named.edge], BURST)

    assert unnamed.peer.recv(1 << 20) == b"".join(each.sse_chunk for each in BURST)
    assert named.peer.recv(1 << 20) == b"".join(each.named_chunk for each in BURST)


async def test_whatever_a_socket_takes_of_what_belongs_together_the_rest_follows(enter: Callable[..., Client]) -> None:
    for room in range(0, sum(len(each.sse_chunk) for each in BURST), 7):
        client = enter()
        client.edge.keep_rest(BURST, room)
        written = b"".join(each.sse_chunk for each in BURST)

        assert client.read_all() == written[room:]


async def test_of_what_belongs_together_only_what_was_begun_is_kept_whatever_its_class(
    enter: Callable[..., Client],
) -> None:
    amid, between = enter(), enter()
    prices = [Event("price", b'{"p":%d}' % price, overflow=Overflow.LATEST, key="X") for price in range(5)]
    amid.edge.keep_rest(prices, len(prices[0].sse_chunk) + 1)
    between.edge.keep_rest(prices, len(prices[0].sse_chunk))

    assert amid.read_all() == prices[1].sse_chunk[1:] + prices[-1].sse_chunk
    assert between.read_all() == prices[-1].sse_chunk


async def test_one_without_any_room_keeps_it_by_its_class(enter: Callable[..., Client]) -> None:
    client = enter()
    while write(client.edge.fd, b"x" * 4096):
        pass
    for newest in (b"1", b"2"):
        price = Event("price", newest, overflow=Overflow.LATEST, key="X")
        deliver_to_each([client.edge], [price])

    assert client.read_all().count(b"data: ") == 1


async def test_one_that_closes_gets_nothing_more(enter: Callable[..., Client]) -> None:
    closing, other = enter(), enter()
    closing.edge.close()
    deliver_to_each([other.edge, closing.edge], [NEWS])

    assert other.read_all() == NEWS.sse_chunk
    assert closing.read_all() == LAST_CHUNK


async def test_one_that_is_gone_is_let_go_and_the_others_have_it(enter: Callable[..., Client]) -> None:
    gone, closed, other = enter(), enter(), enter()
    gone.peer.close()
    closed.edge.pool.discard(closed.edge)
    deliver_to_each([gone.edge, closed.edge, other.edge], [NEWS])

    assert other.read_all() == NEWS.sse_chunk
    await eventually(lambda: gone.session.closed)


async def test_a_round_of_the_loop_makes_bytes_of_a_portion_whatever_waits(enter: Callable[..., Client]) -> None:
    client, most, received = enter(), 0, b""
    client.fill()
    for _ in range(9):
        client.edge.deliver(LARGE)
    before = client.edge.congestion
    while (congestion := client.edge.congestion) is not None:
        received += client.peer.recv(1 << 20)
        client.edge.writable_again()
        most = max(most, len(congestion.tail))

    assert before is not None
    assert most < PORTION_BYTES + len(LARGE.sse_chunk)
    assert (received + client.read_all()).count(LARGE.sse_chunk) >= 10


async def test_one_that_is_full_shares_what_waits_with_all_who_are(enter: Callable[..., Client]) -> None:
    client = enter()
    client.fill()
    for _ in range(5):
        client.edge.deliver(LARGE)

    assert client.edge.congestion is not None
    assert len(client.edge.congestion.tail) <= len(LARGE.sse_chunk)
    assert client.edge.congestion.pending_bytes > 5 * len(LARGE.body)
