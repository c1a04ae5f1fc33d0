"""The text of a message: kept as it was written, less what could deceive or break a reader."""

from __future__ import annotations

import re
import unicodedata

from shared.contracts.events import MAX_CONTENT_CHARS
from shared.errors import BadInput

# What no reader sees and what deceives one: the controls (Cc) but newline and tab, lone surrogates (Cs), and the
# controls that turn the direction of text around and so make it read as something else (UAX #9; CVE-2021-42574).
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
MAX_MARKS = 30
"""On one letter. More stand in no language (UAX #15 section 13), and time to order them grows with their square."""


def clean(content: str) -> str:
    """Return `content` in NFC, without bidirectional and other controls, lone surrogates and towers of marks.

    Escaping is the reader's work, where it is known what for; nothing is escaped here.

    Raises:
        BadInput: nothing is left, or it is too long.
    """
    text = visible(content)
    if not text:
        raise BadInput("content is empty")
    if len(text) > MAX_CONTENT_CHARS:
        raise BadInput(f"content exceeds the limit of {MAX_CONTENT_CHARS} characters")
    return text


def visible(content: str) -> str:
    """Return what a reader may see of `content`, in NFC; it may be nothing."""
    # Most text is printable, so it has none of them, and much is ASCII, so it is in NFC: seen in a tenth of the time.
    text = content if content.isprintable() else _UNWANTED.sub("", content)
    return (text if text.isascii() else unicodedata.normalize("NFC", _without_towers(text))).strip()


def _without_towers(text: str) -> str:
    kept, marks = [], 0
    for char in text:
        marks = marks + 1 if unicodedata.category(char)[0] == "M" else 0
        if marks <= MAX_MARKS:
            kept.append(char)
    return "".join(kept)
