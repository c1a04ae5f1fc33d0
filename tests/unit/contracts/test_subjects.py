"""Subjects are built in one place, from ids alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.broker.memory_server import matches
from shared.contracts import subjects
from shared.contracts.streams import STREAMS
from shared.errors import BadId
from tests.support.hostile import BAD_IDS

ROOT = Path(__file__).parents[3]
THE_BUILDERS = {ROOT / "shared/contracts/subjects.py", ROOT / "shared/contracts/streams.py"}
"""`streams.py` says which subjects a stream keeps: patterns, not addresses."""

_SUBJECT = re.compile(
    r"(?:\$KV|live|chat\.room|eph\.chat|notify\.(?:user|topic)|prices|status|logs|auth\.revoked|deadletter|edge\.session|count)"
    r"\.\S*"
)

ONE_ID: list[Callable[[str], str]] = [
    subjects.chat_message,
    subjects.typing,
    subjects.read,
    subjects.notify_user,
    subjects.notify_topic,
    subjects.price,
    subjects.revoked,
    subjects.session_commands,
    subjects.bucket_stream,
    lambda text: subjects.status("chat", text),
    lambda text: subjects.status(text, "edge"),
    lambda text: subjects.log("chat", text),
    lambda text: subjects.log(text, "edge"),
    lambda text: subjects.session_command("edge", text),
    lambda text: subjects.session_command(text, "session"),
    lambda text: subjects.counter("chat", text, 1),
    lambda text: subjects.bucket_key(subjects.ROOMS, text),
    lambda text: subjects.bucket_keys(subjects.PRESENCE, text),
    lambda text: subjects.bucket_changes(subjects.PRESENCE, text),
]


@pytest.mark.parametrize("text", BAD_IDS)
def test_no_builder_lets_anything_but_an_id_into_a_subject(text: str) -> None:
    for build in ONE_ID:
        with pytest.raises(BadId):
            build(text)


def test_what_the_builders_build_is_short_enough_for_the_server() -> None:
    longest = max(len(subjects.live(build("x" * 64))) for build in ONE_ID)

    assert longest < 256


@pytest.mark.parametrize(
    ("stream", "subject"),
    [
        (subjects.CHAT, subjects.chat_message("room")),
        (subjects.NOTIFY, subjects.notify_user("user")),
        (subjects.NOTIFY, subjects.notify_topic("topic")),
        (subjects.PRICES, subjects.price("AAPL")),
        (subjects.STATUS, subjects.status("chat", "edge")),
        (subjects.REVOKED, subjects.revoked("user")),
        (subjects.DEADLETTER, subjects.deadletter(subjects.notify_user("user"))),
        (subjects.COUNTERS, subjects.counter("chat", "user", 7)),
    ],
)
def test_each_stored_subject_is_kept_by_its_stream_and_no_other(stream: str, subject: str) -> None:
    keeping = [spec.name for spec in STREAMS if any(matches(pattern, subject) for pattern in spec.subjects)]

    assert keeping == [stream]


def test_a_live_subject_names_the_stored_one() -> None:
    subject = subjects.chat_message("room")

    assert subjects.stored(subjects.live(subject)) == subject
    assert subjects.tokens_after(subjects.live(subject), 3) == ["room", "msg"]


def test_no_subject_is_written_down_outside_the_builder() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sorted([*(ROOT / "services").rglob("*.py"), *(ROOT / "shared").rglob("*.py")])
        if path not in THE_BUILDERS and "node_modules" not in path.parts
        for line, text in _subjects_in(path.read_text())
    ]

    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        'a = "chat.room.general.msg"',
        'a = f"notify.user.{user}"',
        'a = "live." + room',
        'a = "$KV.rooms.x"',
        'b = "prices.*"',
    ],
)
def test_the_search_finds_a_planted_subject(code: str) -> None:
    assert list(_subjects_in(code))


def _subjects_in(source: str) -> Iterator[tuple[int, str]]:
    """Yield the string literals that look like subjects; docstrings are prose, and so is what names no subject."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            prose.update(id(part) for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if id(node) not in prose and _SUBJECT.fullmatch(text):
            yield node.lineno, text
