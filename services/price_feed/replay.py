"""Recorded prices: a CSV file of `timestamp_ms,symbol,price` (no quotes), replayed in its own rhythm times a speed.

The file is read and checked as a whole at the start, so that a bad line stops the start and not the feed. Ticks go out
with the time of their sending. A successor goes on at the row where its predecessor stopped; another file starts at
its first row. After a stall the replay goes on where it stood: it is later, and nothing of it is skipped.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from services.price_feed.source import Batch, Pulse, count_at
from shared.contracts.events import PriceTick
from shared.errors import BadInput, TooLarge

COLUMNS = ["timestamp_ms", "symbol", "price"]
MAX_BYTES = 16 << 20
MAX_BATCH = 5_000
LOOP_PAUSE_MS = 1_000
"""Between the last row and the first one of the next round, in the file's time."""


class Row(NamedTuple):
    """One line of the file; the time counts from the first row."""

    offset_ms: int
    symbol: str
    price: float


class Replay:
    """Gives the rows of a recording when their time has come, at most `MAX_BATCH` in one pull."""

    def __init__(self, rows: Sequence[Row], *, name: str, speed: float, loop: bool) -> None:
        """Stand at the first row.

        Args:
            rows: at least one, in the order of time.
            name: tells this recording from others; part of the position.
            speed: 1.0 is the rhythm of the recording, 2.0 twice as fast.
            loop: begin anew at the end; otherwise it falls silent.
        """
        self._rows, self._name, self._speed, self._loop = rows, name, speed, loop
        self._symbols = sorted({row.symbol for row in rows})
        self._round_ms = rows[-1].offset_ms + LOOP_PAUSE_MS
        self._pulse = Pulse()
        self.resume({}, "")

    @classmethod
    def load(cls, path: Path, *, speed: float, loop: bool) -> Replay:
        """Read and check a recording.

        Raises:
            BadInput: it cannot be read, is empty or has a bad line; the message names file and line.
        """
        data = _read(path)
        name = f"replay-{zlib.crc32(data):08x}"
        return cls(_parse(path, data), name=name, speed=speed, loop=loop)

    @property
    def symbols(self) -> Sequence[str]:
        """All symbols of the recording."""
        return self._symbols

    @property
    def position(self) -> str:
        """`replay-<checksum of the file>:<number of rows given, over all rounds>`."""
        return f"{self._name}:{self._given}"

    def resume(self, last: Mapping[str, float], position: str) -> None:
        """See `PriceSource.resume`."""
        self._given = count_at(position, self._name)
        self._shown = dict(last)
        self._now_ms = float(self._due_ms()) if not self._ended() else 0.0
        self._pulse.restart()

    def next_batch(self, now_ms: int) -> Batch:
        """See `PriceSource.next_batch`."""
        step_ms, _ = self._pulse.step(now_ms)
        self._now_ms += step_ms * self._speed
        ticks: list[PriceTick] = []
        while len(ticks) < MAX_BATCH and not self._ended() and self._due_ms() <= self._now_ms:
            ticks.append(self._tick(now_ms))
        return Batch(ticks)

    def _ended(self) -> bool:
        return not self._loop and self._given >= len(self._rows)

    def _due_ms(self) -> int:
        rounds, index = divmod(self._given, len(self._rows))
        return rounds * self._round_ms + self._rows[index].offset_ms

    def _tick(self, now_ms: int) -> PriceTick:
        row = self._rows[self._given % len(self._rows)]
        previous, self._shown[row.symbol] = self._shown.get(row.symbol, row.price), row.price
        self._given += 1
        return PriceTick(symbol=row.symbol, price=row.price, timestamp=now_ms, previous=previous)


# -- reading the file ---------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise TooLarge(str(path), MAX_BYTES)
    return data


def _parse(path: Path, data: bytes) -> list[Row]:
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 at byte {error.start}") from error
    if not lines or [name.strip() for name in lines[0].split(",")] != COLUMNS:
        raise BadInput(f"{path}: line 1: the header must be {','.join(COLUMNS)}")
    rows = _rows(path, lines[1:])
    if not rows:
        raise BadInput(f"{path}: it holds no prices")
    return [row._replace(offset_ms=row.offset_ms - rows[0].offset_ms) for row in rows]


def _rows(path: Path, lines: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        try:
            row = _row(line)
        except ValueError as error:
            raise BadInput(f"{path}: line {number}: {error}") from error
        if rows and row.offset_ms < rows[-1].offset_ms:
            raise BadInput(f"{path}: line {number}: the time goes backwards")
        rows.append(row)
    return rows


def _row(line: str) -> Row:
    """Check one line by the contract's own model, so that what is replayed can be published.

    Raises:
        ValueError: it says what is wrong.
    """
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(COLUMNS):
        raise ValueError(f"expected {len(COLUMNS)} columns, found {len(cells)}")
    timestamp, symbol, price = cells
    try:
        tick = PriceTick.model_validate_strings({"timestamp": timestamp, "symbol": symbol, "price": price})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0]}: {first['msg']}") from error
    return Row(tick.timestamp, tick.symbol, tick.price)
