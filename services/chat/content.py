"""The text of a message: kept as it was written, less what could deceive or break a reader."""

from __future__ import annotations

import unicodedata

from shared.contracts.events import MAX_CONTENT_CHARS
from shared.errors import BadInput

# Controls that turn the direction of text around and so make it read as something else (UAX #9; CVE-2021-42574).
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")
_KEPT_CONTROLS = frozenset("\n\t")


def clean(content: str) -> str:
    """Return `content` in NFC, without bidirectional and other controls and without lone surrogates.

    Escaping is the reader's work, where it is known what for; nothing is escaped here.

    Raises:
        BadInput: nothing is left, or it is too long.
    """
    kept = "".join(char for char in content if _visible(char))
    text = unicodedata.normalize("NFC", kept).strip()
    if not text:
        raise BadInput("content is empty")
    if len(text) > MAX_CONTENT_CHARS:
        raise BadInput(f"content exceeds the limit of {MAX_CONTENT_CHARS} characters")
    return text


def _visible(char: str) -> bool:
    if char in _BIDI_CONTROLS:
        return False
    return char in _KEPT_CONTROLS or unicodedata.category(char) not in ("Cc", "Cs")
