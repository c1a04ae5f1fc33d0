"""Ids are the only text of a user that may become part of a subject, so nothing else passes for one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.contracts.ids import Id, new_id, require_id
from shared.errors import BadId
from tests.support.hostile import BAD_IDS


@pytest.mark.parametrize("text", BAD_IDS)
def test_what_is_no_id_is_refused_by_both_doors(text: str) -> None:
    with pytest.raises(BadId):
        require_id(text)
    with pytest.raises(ValidationError):
        TypeAdapter(Id).validate_python(text)


@pytest.mark.parametrize("value", [None, 1, b"abc", ["abc"]])
def test_only_text_is_an_id(value: object) -> None:
    with pytest.raises(BadId):
        require_id(value)


@given(text=st.text(max_size=80))
def test_both_doors_agree_on_any_text(text: str) -> None:
    is_id = re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text, re.ASCII) is not None
    try:
        passed = require_id(text) == text
    except BadId:
        passed = False
    try:
        validated = TypeAdapter(Id).validate_python(text) == text
    except ValidationError:
        validated = False

    assert passed == validated == is_id


def test_new_ids_are_ids_and_differ() -> None:
    ids = {new_id("room-") for _ in range(100)}

    assert len(ids) == 100
    assert all(require_id(one) == one for one in ids)
