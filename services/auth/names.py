"""Names that people choose: what they may contain, and when two of them are the same."""

from __future__ import annotations

import unicodedata

from shared.errors import BadInput

MAX_USERNAME_CHARS = 32
MAX_DISPLAY_CHARS = 64
MAX_MARKS = 2
_IN_USERNAME = frozenset("LNM")
_PUNCTUATION = frozenset("_-.")
_ALIKE = ("LATIN ", "CYRILLIC ", "GREEK ")
"""Alphabets whose letters look the same; a name of several of them is made to look like another (UTS 39 section 5)."""

_NEVER_SHOWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Controls, formats (bidi overrides, zero-width), surrogates, private, unassigned, line and paragraph separators."""


def username(text: str) -> str:
    """Return the name as it is kept and shown: NFKC; letters, digits and `_-.` of any script.

    Raises:
        BadInput: it is no name.
    """
    name = unicodedata.normalize("NFKC", text)
    if not 1 <= len(name) <= MAX_USERNAME_CHARS or not all(map(_in_username, name)) or _marks_piled(name):
        raise BadInput(f"a username has 1 to {MAX_USERNAME_CHARS} letters, digits or any of _-.")
    if unicodedata.category(name[0])[0] == "M":
        raise BadInput("a username does not begin with a mark")
    return name


def new_username(text: str) -> str:
    """Return the name that somebody new wants; who has one already keeps it. Raises BadInput as `username` does."""
    name = username(text)
    if sum(any(unicodedata.name(char, "").startswith(alphabet) for char in name) for alphabet in _ALIKE) > 1:
        raise BadInput("a username is of one alphabet")
    return name


def username_key(name: str) -> str:
    """Return what decides whether two names are one: case and compatibility forms do not count (UAX 15, UTS 39)."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", folded)


def display_name(text: str) -> str:
    """Return the name that others see: NFC, any visible characters, single spaces.

    Raises:
        BadInput: it is empty, too long, or has characters that nobody sees or that turn the text around.
    """
    name = " ".join(unicodedata.normalize("NFC", text).split())
    hidden = any(unicodedata.category(char) in _NEVER_SHOWN for char in name)
    if not 1 <= len(name) <= MAX_DISPLAY_CHARS or hidden or _marks_piled(name):
        raise BadInput(f"a display name has 1 to {MAX_DISPLAY_CHARS} visible characters")
    return name


def _in_username(char: str) -> bool:
    return char in _PUNCTUATION or unicodedata.category(char)[0] in _IN_USERNAME


def _marks_piled(name: str) -> bool:
    """Say whether more than MAX_MARKS combining marks stand on one letter."""
    run = 0
    for char in name:
        run = run + 1 if unicodedata.combining(char) else 0
        if run > MAX_MARKS:
            return True
    return False
