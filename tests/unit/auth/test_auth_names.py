"""Which names people may choose, and which are one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.auth.names import display_name, new_username, username, username_key
from shared.errors import BadInput


@pytest.mark.parametrize("name", ["ann", "Ann_B.c-9", "Ольга", "山田", "नमस्ते", "a"])
def test_names_of_any_script_pass(name: str) -> None:
    assert username(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a\x00", "a\n", "a\u200bb", "a\u202eb", "\ufeffa", "a@b", "a/b", "x" * 33, "😀", "\u0301a",
     "a\u0301\u0302\u0303\u0304", "\ud800", "*", ">"],
)  # fmt: skip
def test_names_that_hide_or_break_something_are_refused(name: str) -> None:
    with pytest.raises(BadInput):
        username(name)


@pytest.mark.parametrize("name", ["\u0430lice", "\u0391nn", "ann-\u0455"])
def test_new_names_do_not_mix_alphabets_that_look_alike_and_who_has_one_may_log_in(name: str) -> None:
    with pytest.raises(BadInput, match="one alphabet"):
        new_username(name)
    assert username(name) == name


@pytest.mark.parametrize("name", ["山田_Taro", "Ольга-2", "Ωμέγα", "ann_नमस्ते"])
def test_names_of_alphabets_that_do_not_may_be(name: str) -> None:
    assert new_username(name) == name


@pytest.mark.parametrize(
    ("one", "other"), [("Ann", "aNN"), ("ann", "\uff41\uff4e\uff4e"), ("STRASSE", "straße"), ("ﬁn", "FIN")]
)
def test_names_that_differ_only_in_form_are_one(one: str, other: str) -> None:
    assert username_key(username(one)) == username_key(username(other))


@given(st.text(max_size=40))
def test_the_key_of_a_key_is_itself_and_fits_its_column(text: str) -> None:
    try:
        key = username_key(username(text))
    except BadInput:
        return
    assert username_key(key) == key
    assert 1 <= len(key) <= 128


@pytest.mark.parametrize("name", ["", "   ", "a\u202eb", "a\x07", "a\u2028b\u200b", "x" * 65, "\ue000"])
def test_display_names_hide_nothing(name: str) -> None:
    with pytest.raises(BadInput):
        display_name(name)


def test_display_names_may_be_friendly() -> None:
    assert display_name("  Ann  B. 😀 ") == "Ann B. 😀"
