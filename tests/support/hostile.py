"""What no client should send, for every door that it may knock at."""

from __future__ import annotations

BAD_IDS = [
    "",
    "*",
    ">",
    "a.b",
    "..",
    "$SYS.x",
    "a b",
    "a\r\nPUB x 1\r\n",
    "a\n",
    "\x00",
    "é",
    "😀",
    "a" * 65,
    "a" * 5_000,
    "../../etc",
    "%2e",
]
