"""Every error of the tree has its place on both wires, and every close code says whether a client comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from shared.contracts import wire_errors
from shared.contracts.close_codes import RECONNECT, CloseCode, Reconnect
from shared.contracts.wire_errors import CLOSE_CODE, HTTP_STATUS, close_code, error_data, problem, refusal_code
from shared.errors import (
    BadId,
    BadInput,
    FanfareError,
    OriginRefused,
    OutcomeUnknown,
    RateLimited,
    SessionRevoked,
    TokenExpired,
    TooLarge,
    Unauthorized,
    Unavailable,
)


def tree(root: type[FanfareError] = FanfareError) -> Iterator[type[FanfareError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def make(kind: type[FanfareError]) -> FanfareError:
    if issubclass(kind, TooLarge):
        return kind("frame", 1)
    if issubclass(kind, RateLimited):
        return kind(retry_after_ms=1_500)
    return kind()


ERRORS = sorted({kind for kind in tree() if kind.__module__ == FanfareError.__module__}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_a_status_and_a_body_on_both_wires(kind: type[FanfareError]) -> None:
    error = make(kind)
    body, data = problem(error), error_data(error)

    assert body["status"] == HTTP_STATUS[kind.code]
    assert body["code"] == data["code"] == kind.code
    assert body["retryable"] == data["retryable"] == kind.retryable
    assert body["detail"] == data["message"]
    assert body["detail"]


def test_the_tables_name_no_code_that_does_not_exist() -> None:
    codes = {kind.code for kind in ERRORS}

    assert set(HTTP_STATUS) == codes
    assert set(CLOSE_CODE) <= codes
    assert set(wire_errors.REFUSAL_CODE) <= codes


def test_codes_are_stable_names() -> None:
    assert all(re.fullmatch(r"[a-z_]+", kind.code) for kind in ERRORS)
    assert len({kind.code for kind in ERRORS}) == len(ERRORS)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unauthorized(), 4008),
        (TokenExpired(), 4009),
        (SessionRevoked(), 4010),
        (OriginRefused(), 4003),
        (TooLarge("frame", 1), 4013),
        (BadInput(), None),
        (BadId(), None),
        (RateLimited(retry_after_ms=1), None),
        (OutcomeUnknown(), None),
    ],
)
def test_an_error_closes_a_connection_only_if_it_must(error: FanfareError, code: int | None) -> None:
    assert close_code(error) == code


@pytest.mark.parametrize(
    ("error", "code"), [(RateLimited(retry_after_ms=1), 4029), (Unavailable(), 1012), (BadId(), 4003)]
)
def test_a_connection_that_cannot_begin_is_always_closed(error: FanfareError, code: int) -> None:
    assert refusal_code(error) == code


def test_a_rate_limit_says_when_to_come_back_on_both_wires() -> None:
    error = RateLimited(retry_after_ms=1_500)

    assert problem(error)["retryAfterMs"] == error_data(error)["retryAfterMs"] == 1_500
    assert wire_errors.problem_headers(error)["retry-after"] == "2"


def test_every_close_code_says_whether_a_client_reconnects() -> None:
    assert set(RECONNECT) == set(CloseCode)
    assert RECONNECT[CloseCode.NORMAL] is Reconnect.NO
    assert RECONNECT[CloseCode.SESSION_REVOKED] is Reconnect.NO
    assert RECONNECT[CloseCode.TOO_SLOW] is Reconnect.NOW


def test_close_codes_are_such_as_an_application_may_send() -> None:
    """RFC 6455 section 7.4: 1000, what IANA registered for servers, and the private range."""
    assert all(code in {1000, 1001, 1012} or 4000 <= code <= 4999 for code in CloseCode)
