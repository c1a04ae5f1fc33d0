"""A ring: the same bytes to many sockets in one system call, through Linux' io_uring (ADR 0024).

`send(2)` to a thousand sockets is a thousand walks from Python into the kernel and back; a ring takes a list of what to
send and walks once. Nothing here is asynchronous: every send is carried out, or refused for want of room, before
`io_uring_enter` returns (MSG_DONTWAIT), so no buffer and no descriptor is in use afterwards.

The layout is that of `linux/io_uring.h`; io_uring_setup(2) and io_uring_enter(2) say what each field means.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

ENTRIES = 256
MAX_BYTES = 128 * 1024

_SETUP, _ENTER = 425, 426  # system calls; these have the same number on every architecture
_SUBMIT_ALL = 1 << 7  # IORING_SETUP_SUBMIT_ALL: what one entry fails at does not hold up those behind it
_SQ_OFFSET, _CQ_OFFSET, _ENTRIES_OFFSET = 0, 0x8000000, 0x10000000  # what of the ring to map
_WORD = 1 << 32  # heads and tails count round it

_PARAMS = struct.Struct("10I8IQ8IQ")  # io_uring_params
_CQ_ENTRIES, _SQ_MEMBERS, _CQ_MEMBERS = 1, 10, 19  # places in it
_HEAD, _TAIL, _ARRAY, _CQES = 0, 1, 6, 5  # places in its io_sqring_offsets and io_cqring_offsets
_ENTRY = struct.Struct("BBHiQQIIQ24x")  # io_uring_sqe: opcode flags ioprio fd off addr len msg_flags user_data
_FD_WORD, _SIZE_WORD, _ADDRESS_LONG = 1, 6, 2  # places in it, in units of 4 and 8 bytes
_COMPLETION = struct.Struct("QiI")  # io_uring_cqe: user_data res flags

_SEND = 26  # IORING_OP_SEND
_SKIP_SUCCESS = 1 << 6  # IOSQE_CQE_SKIP_SUCCESS: a completion only for what was not sent whole, by MSG_WAITALL
# Some systems that have no io_uring have no MSG_NOSIGNAL either, and import this all the same.
_SEND_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0) | socket.MSG_WAITALL


Shot = tuple[Sequence[int], bytes]
"""The bytes, and the descriptors that they go to."""


class RingRefused(Exception):
    """The kernel gives no ring: it is too old, or a policy forbids it (seccomp, kernel.io_uring_disabled)."""


class Short(NamedTuple):
    """Who did not take all: `place` counts the descriptors of all shots, `sent` are the bytes taken, 0 if none."""

    place: int
    sent: int


class SendRing:
    """A ring of one thread. What is sent is copied here once: the kernel reads no Python object, and only meanwhile."""

    def __init__(self, entries: int = ENTRIES) -> None:
        """Set up a ring for `entries`, a power of two, at a time.

        Raises:
            RingRefused: the kernel gives none, or one that does not keep what `send` promises.
        """
        self._fd, self._entries = -1, entries
        self._tail = self._waiting = self._used_bytes = self._submitted = 0
        with ExitStack() as undo:
            undo.callback(self.close)
            try:
                self._enter = _system_call(*(ctypes.c_long,) * 6)
                self._map(self._set_up())
            except OSError as error:
                raise RingRefused(str(error)) from error
            _prove(self)
            undo.pop_all()

    def send(self, shots: Iterable[Shot]) -> list[Short]:
        """Send each shot's bytes, at most MAX_BYTES, to all its descriptors; return who has not taken all of it.

        Never blocks, and raises for no socket: one that is full, closed or gone has taken nothing. No descriptor may be
        in it twice: it could take a part of the one and then, having got room, the other.
        """
        self._waiting = self._used_bytes = self._submitted = 0  # nothing of a call that went wrong goes out with this
        shorts: list[Short] = []
        for fds, data in shots:
            done = 0
            while done < len(fds):
                if self._waiting == self._entries or self._used_bytes + len(data) > MAX_BYTES:
                    shorts += self._submit()
                done += self._add(fds[done:], data)
        shorts += self._submit()
        return shorts

    def close(self) -> None:
        """Give the ring back, but for its memory, which goes with this object; what is sent is taken by nobody then."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # -- private ------------------------------------------------------------------------------------------------------

    def _add(self, fds: Sequence[int], data: bytes) -> int:
        """Put sends of `data` behind those that wait, up to the end of the table; return how many."""
        slot, size = (self._tail + self._waiting) % self._entries, len(data)
        part = array("i", fds[: min(self._entries - slot, self._entries - self._waiting)])
        end = slot + len(part)
        self._fds[slot:end] = part
        self._sizes[slot:end] = array("I", (size,)) * len(part)
        self._addresses[slot:end] = array("Q", (self._address + self._used_bytes,)) * len(part)
        self._data[self._used_bytes : self._used_bytes + size] = data
        self._used_bytes += size
        self._waiting += len(part)
        return len(part)

    def _submit(self) -> list[Short]:
        """Have the kernel carry out what waits.

        It works in this very thread, inside the call, so neither side needs a barrier to see what the other wrote.
        """
        begin, count = self._tail, self._waiting
        self._sq[self._sq_tail] = (begin + count) % _WORD
        carried_out = max(0, self._enter(_ENTER, self._fd, count, 0, 0, 0, 0))
        # What it had no memory for must not go out with the next ones.
        self._sq[self._sq_tail] = self._tail = (begin + carried_out) % _WORD
        shorts = [Short(self._submitted + (slot - begin) % self._entries, sent) for slot, sent in self._complete()]
        shorts += [Short(self._submitted + place, 0) for place in range(carried_out, count)]
        self._submitted += count
        self._waiting = self._used_bytes = 0
        return shorts

    def _complete(self) -> list[tuple[int, int]]:
        """Take the completions, none where all went well: the slot of each, and how many bytes of it were taken."""
        head, tail = self._cq[self._cq_head], self._cq[self._cq_tail]
        if head == tail:
            return []
        places = [(head + place) % self._cq_entries for place in range((tail - head) % _WORD)]
        self._cq[self._cq_head] = tail
        completions = [_COMPLETION.unpack_from(self._completions, place * _COMPLETION.size) for place in places]
        return [(slot, max(0, result)) for slot, result, _ in completions]

    def _set_up(self) -> tuple[int, ...]:
        """Make the ring; return the members of its `io_uring_params`."""
        params = ctypes.create_string_buffer(_PARAMS.pack(0, 0, _SUBMIT_ALL, *(0,) * 25), _PARAMS.size)
        self._fd = _system_call(ctypes.c_long, ctypes.c_void_p)(_SETUP, self._entries, params)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return _PARAMS.unpack(params)

    def _map(self, params: tuple[int, ...]) -> None:
        """Map what is shared with the kernel."""
        sq, cq = params[_SQ_MEMBERS:_CQ_MEMBERS], params[_CQ_MEMBERS:]
        self._cq_entries = params[_CQ_ENTRIES]
        self._sq = self._view(_SQ_OFFSET, sq[_ARRAY] + 4 * self._entries).cast("I")
        completions = self._view(_CQ_OFFSET, cq[_CQES] + _COMPLETION.size * self._cq_entries)
        self._cq, self._completions = completions.cast("I"), completions[cq[_CQES] :]
        self._sq_tail, self._cq_head, self._cq_tail = sq[_TAIL] // 4, cq[_HEAD] // 4, cq[_TAIL] // 4
        self._tail = self._sq[self._sq_tail]
        self._fill_in(self._view(_ENTRIES_OFFSET, _ENTRY.size * self._entries), sq[_ARRAY] // 4)

    def _fill_in(self, entries: memoryview[int], places: int) -> None:
        """Write what is the same of every send; what differs are columns: descriptors, addresses and sizes."""
        buffer = ctypes.create_string_buffer(MAX_BYTES)
        self._data, self._address = memoryview(buffer).cast("B"), ctypes.addressof(buffer)
        for slot in range(self._entries):
            self._sq[places + slot] = slot
            same = _SEND, _SKIP_SUCCESS, 0, -1, 0, 0, 0, _SEND_FLAGS, slot
            _ENTRY.pack_into(entries, slot * _ENTRY.size, *same)
        self._fds = entries.cast("i")[_FD_WORD :: _ENTRY.size // 4]
        self._sizes = entries.cast("I")[_SIZE_WORD :: _ENTRY.size // 4]
        self._addresses = entries.cast("Q")[_ADDRESS_LONG :: _ENTRY.size // 8]

    def _view(self, offset: int, size: int) -> memoryview[int]:
        return memoryview(mmap.mmap(self._fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=offset))


def _system_call(*argtypes: type[ctypes.c_long] | type[ctypes.c_void_p]) -> Callable[..., int]:
    """Return syscall(2) for one that takes `argtypes` behind its number."""
    call = ctypes.CDLL(None, use_errno=True)["syscall"]
    call.argtypes, call.restype = (ctypes.c_long, *argtypes), ctypes.c_long
    return call


def _prove(ring: SendRing) -> None:
    """See that it does what it promises: kernels have differed in what becomes of a send that finds too little room.

    Raises:
        RingRefused: this one differs.
    """
    data = b"x" * 16_384
    with ExitStack() as stack:
        (free, _), (narrow, _), (gone, _) = (_open_pair(stack) for _ in range(3))
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(data) // 4)
        gone.shutdown(socket.SHUT_WR)
        fds = [narrow.fileno(), free.fileno(), -1, gone.fileno()]
        first, second = sorted(ring.send([(fds, data)])), sorted(ring.send([(fds[:1], data)]))
    shorts = [short.place for short in first], [(short.place, short.sent) for short in second]
    if shorts != ([0, 2, 3], [(0, 0)]) or not 0 < first[0].sent < len(data) or first[1].sent or first[2].sent:
        raise RingRefused(f"this kernel's sends differ: {first}, {second}")


def _open_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for end in pair:
        stack.enter_context(end)
        end.setblocking(False)
    return pair
