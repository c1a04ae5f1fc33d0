"""The replay of a recording: its rhythm, its end, its successor, and what is said of a bad file."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.price_feed.replay import LOOP_PAUSE_MS, MAX_BATCH, Replay, Row
from shared.errors import BadInput

T0 = 1_800_000_000_000
HEADER = "timestamp_ms,symbol,price\n"
RECORDING = HEADER + "1000,A,10\n1100,B,20\n1300,A,11\n"


def load(tmp_path: Path, text: str = RECORDING, *, speed: float = 1.0, loop: bool = False) -> Replay:
    file = tmp_path / "prices.csv"
    file.write_text(text)
    return Replay.load(file, speed=speed, loop=loop)


def pull(source: Replay, *after_ms: int) -> list[list[tuple[str, float]]]:
    """Pull at these times after T0; return symbol and price of each batch."""
    return [[(tick.symbol, tick.price) for tick in source.next_batch(T0 + ms).ticks] for ms in after_ms]


def test_rows_come_in_the_rhythm_of_the_recording(tmp_path: Path) -> None:
    batches = pull(load(tmp_path), 0, 99, 100, 299, 300, 10_000)

    assert batches == [[("A", 10)], [], [("B", 20)], [], [("A", 11)], []]


def test_the_speed_shortens_the_waits(tmp_path: Path) -> None:
    assert pull(load(tmp_path, speed=2.0), 0, 50, 150) == [[("A", 10)], [("B", 20)], [("A", 11)]]


def test_a_loop_begins_anew_after_a_pause(tmp_path: Path) -> None:
    source = load(tmp_path, loop=True, speed=10.0)
    pull(source, 0, 30)

    pause_ms = LOOP_PAUSE_MS // 10
    assert pull(source, 30 + pause_ms - 1, 30 + pause_ms) == [[], [("A", 10)]]


def test_ticks_carry_the_time_of_sending_and_the_change(tmp_path: Path) -> None:
    source = load(tmp_path)
    first = source.next_batch(T0).ticks[0]
    last = source.next_batch(T0 + 400).ticks[-1]

    assert first.shown() == {
        "symbol": "A", "price": 10, "timestamp": T0, "previous": 10, "change": 0, "changePercent": 0
    }  # fmt: skip
    assert (last.timestamp, last.previous) == (T0 + 400, 10)
    assert (last.shown()["change"], last.shown()["changePercent"]) == (1, 10)


def test_a_stall_makes_it_later_and_skips_nothing(tmp_path: Path) -> None:
    text = HEADER + "".join(f"{at},A,{10 + at}\n" for at in range(0, 5_000, 100))
    source = load(tmp_path, text)
    pull(source, 0)

    batch = source.next_batch(T0 + 60_000)

    assert (len(batch.ticks), batch.skipped) == (5, 0)
    assert pull(source, 60_100) == [[("A", 610)]]


def test_a_successor_goes_on_at_the_next_row_and_its_own_time(tmp_path: Path) -> None:
    first = load(tmp_path)
    pull(first, 0, 100)
    successor = load(tmp_path)
    successor.resume({"A": 10.0, "B": 20.0}, first.position)

    tick = successor.next_batch(T0 + 90_000).ticks[0]

    assert (tick.symbol, tick.price, tick.previous) == ("A", 11, 10)


def test_another_file_starts_at_its_first_row(tmp_path: Path) -> None:
    first = load(tmp_path)
    pull(first, 0, 100)
    other = load(tmp_path, RECORDING + "1400,B,21\n")
    other.resume({}, first.position)

    assert pull(other, 0) == [[("A", 10)]]


def test_a_recording_that_has_ended_stays_silent_for_its_successor(tmp_path: Path) -> None:
    first = load(tmp_path)
    pull(first, 0, 500)
    successor = load(tmp_path)
    successor.resume({}, first.position)

    assert pull(successor, 0, 500) == [[], []]


def test_one_pull_is_bounded() -> None:
    source = Replay([Row(0, "A", 1.0)] * (MAX_BATCH + 1), name="r", speed=1.0, loop=False)

    assert [len(batch) for batch in pull(source, 0, 1)] == [MAX_BATCH, 1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: the header must be timestamp_ms,symbol,price"),
        ("time,symbol,price\n1,A,1\n", "line 1: the header must be"),
        (HEADER, "it holds no prices"),
        (HEADER + "1,A,1\n2,A\n", "line 3: expected 3 columns, found 2"),
        (HEADER + "1,A,1\n\n2,A,1,9\n", "line 4: expected 3 columns, found 4"),
        (HEADER + "noon,A,1\n", "line 2: timestamp"),
        (HEADER + "1,prices.>,1\n", "line 2: symbol"),
        (HEADER + "1,A,nan\n", "line 2: price"),
        (HEADER + "1,A,-1\n", "line 2: price"),
        (HEADER + "2,A,1\n1,A,1\n", "line 3: the time goes backwards"),
    ],
)
def test_a_bad_line_is_named_at_the_start(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(BadInput) as caught:
        load(tmp_path, text)

    assert reason in str(caught.value)
    assert "prices.csv" in str(caught.value)


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        Replay.load(tmp_path / "none.csv", speed=1, loop=True)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not UTF-8"):
        Replay.load(binary, speed=1, loop=True)


def test_a_file_from_a_spreadsheet_with_bom_and_crlf_is_fine(tmp_path: Path) -> None:
    source = load(tmp_path, "\ufeff" + RECORDING.replace("\n", "\r\n"))

    assert source.symbols == ["A", "B"]
