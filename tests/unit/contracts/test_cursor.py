"""Cursors come back as they went out, and hostile text is never one."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.cursor import Position, base36, tag
from shared.errors import BadInput

Epochs = st.from_regex(r"[0-9a-z]{1,16}", fullmatch=True)
Seqs = st.integers(0, 2**63 - 1)


@given(epoch=Epochs, seq=Seqs)
def test_a_position_comes_back_as_it_went_out(epoch: str, seq: int) -> None:
    assert Position.parse(str(Position(epoch, seq))) == Position(epoch, seq)


HOSTILE = [
    "",
    ":",
    "e:",
    ":1",
    "x:y",
    "e:-1",
    "e:+1",
    "e: 1",
    "e:1 ",
    "e:1\n",
    "e:1\r\nid: x",
    "E:1",
    "e:\u0661",  # a digit of another script, which int() would take
    "e:1_0",
    "e:" + "9" * 20,
    "e" * 17 + ":1",
    "e:1,",
    "e:1,a:b",
    "e:1" + ",a:1" * 65,
    "x" * 1_000_000,
    "\x00",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_no_cursor(text: str) -> None:
    with pytest.raises(BadInput):
        Position.parse(text)


@given(text=st.text())
def test_any_text_is_a_cursor_or_bad_input(text: str) -> None:
    with suppress(BadInput):
        assert str(Position.parse(text)).partition(":")[0] == text.partition(":")[0]


@given(value=st.integers(0, 2**64))
def test_base36_reads_back(value: int) -> None:
    assert int(base36(value), 36) == value


@given(name=st.text())
def test_a_tag_may_stand_in_an_epoch(name: str) -> None:
    assert Position.parse(f"{tag(name)}:1").epoch == tag(name)
