"""An event: one message, encoded once, whose bytes go to every listener of either transport."""

from __future__ import annotations

from enum import Enum
from typing import Any

from pydantic_core import to_json

from shared.edge.delivery.framing import BINARY, TEXT, chunk, frame


class Overflow(Enum):
    """What a connection does with an event that it cannot write now.

    LOSSLESS: keeps it, up to a bound in bytes; over it the connection is closed, and resumes with its cursor.
    LATEST: keeps only the newest of each key.
    DROP: forgets it, counts it, and tells the client how many.
    """

    LOSSLESS = "lossless"
    LATEST = "latest"
    DROP = "drop"


class Event:
    """One message on its way to clients.

    Attributes:
        type: the wire type, e.g. `chat_message`.
        body: the JSON object of its data, compact, without a line break.
        overflow: its class of back-pressure; `key` names the value that a newer one replaces (LATEST).
        subject, seq: where it stands in its stream; empty and 0 for what was never stored.
        cursor: the SSE `id`: where a client stands that has received it; empty if that has not moved.
        retry_ms: the SSE `retry`: when the client is to come back after a break; 0 to say nothing of it.
        opcode: the kind of WebSocket frame that it is.
        but: the one outlet of its audience that does not get it; None if all do.
    """

    opcode = TEXT

    __slots__ = (
        "_chunk",
        "_frame",
        "_frame_id",
        "_named_chunk",
        "_sse",
        "body",
        "but",
        "cursor",
        "key",
        "overflow",
        "retry_ms",
        "seq",
        "subject",
        "type",
    )

    def __init__(
        self,
        type_: str,
        body: bytes,
        *,
        overflow: Overflow = Overflow.LOSSLESS,
        key: str = "",
        subject: str = "",
        seq: int = 0,
    ) -> None:
        self.type, self.body, self.overflow, self.key = type_, body, overflow, key
        self.subject, self.seq = subject, seq
        self.cursor = ""
        self.but: object = None
        self.retry_ms = 0
        self._frame_id = b""
        self._frame: bytes | None = None
        self._chunk: bytes | None = None
        self._named_chunk: bytes | None = None
        self._sse: bytes | None = None

    def answering(self, frame_id: bytes) -> Event:
        """Return this event as the answer to a client's frame; `frame_id` is JSON."""
        self._frame_id = b'"id":%b,' % frame_id
        return self

    @property
    def frame_payload(self) -> bytes:
        """The payload of a WebSocket frame: `{"type":…,"data":{…}}`."""
        return b'{"type":"%b",%b"data":%b}' % (self.type.encode(), self._frame_id, self.body)

    @property
    def ws_frame(self) -> bytes:
        """The whole WebSocket frame, made once for all."""
        if self._frame is None:
            self._frame = frame(self.opcode, self.frame_payload)
        return self._frame

    @property
    def sse_chunk(self) -> bytes:
        """The whole SSE event as a chunk of HTTP/1.1, made once for all who want no names."""
        if self._chunk is None:
            self._chunk = chunk(self.to_sse(named=False))
        return self._chunk

    @property
    def named_chunk(self) -> bytes:
        """The same for those who want names."""
        if self._named_chunk is None:
            self._named_chunk = chunk(self.to_sse(named=True))
        return self._named_chunk

    def at(self, cursor: str) -> Event:
        """Return this event, of which nothing is encoded yet, as the one that brings its client to `cursor`."""
        self.cursor = cursor
        return self

    def to_sse(self, *, named: bool) -> bytes:
        """Return the SSE event: `event:` if the client asked for names, `id:` if it moves its cursor, `data:`."""
        retry = b"retry: %d\r\n" % self.retry_ms if self.retry_ms else b""
        name = b"event: %b\r\n" % self.type.encode() if named else b""
        cursor = b"id: %b\r\n" % self.cursor.encode() if self.cursor else b""
        return retry + name + cursor + self.sse_data

    @property
    def sse_data(self) -> bytes:
        """The `data:` line of an SSE event and its blank line: `{"type":…, …}`, flat, as the article's client reads."""
        if self._sse is None:
            comma = b"" if self.body == b"{}" else b","
            self._sse = b'data: {"type":"%b"%b%b\r\n\r\n' % (self.type.encode(), comma, self.body[1:])
        return self._sse


class BinaryEvent(Event):
    """Bytes for WebSockets, sent as they are: no stream of events can carry them."""

    __slots__ = ()

    opcode = BINARY

    @property
    def frame_payload(self) -> bytes:
        """The payload of a WebSocket frame: `body`, which is no JSON here."""
        return self.body


def make_event(type_: str, data: dict[str, Any], *, overflow: Overflow = Overflow.LOSSLESS, key: str = "") -> Event:
    """Return an event that the edge itself says: `data` with JSON names."""
    return Event(type_, to_json(data), overflow=overflow, key=key)


def placed(body: bytes, epoch: str, seq: int) -> bytes:
    """Return `body`, an object with fields, with its place in the stream at its end: `seq`, and the cursor it makes."""
    return b'%b,"seq":%d,"cursor":"%b:%d"}' % (body[:-1], seq, epoch.encode(), seq)
