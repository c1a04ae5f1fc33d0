"""What `make conformance` makes of the suite's report."""

from __future__ import annotations

from typing import Any

from tests.conformance.verdicts import count, new_failures


def verdict(behavior: str = "OK", close: str = "OK") -> dict[str, Any]:
    return {"behavior": behavior, "behaviorClose": close}


def test_good_verdicts_are_no_failures() -> None:
    verdicts = {"1.1.1": verdict(), "6.4.1": verdict("NON-STRICT"), "7.1.6": verdict(close="INFORMATIONAL")}

    assert new_failures(verdicts, "", "epoll") == []
    assert count(verdicts) == "1 NON-STRICT, 2 OK"


def test_a_bad_message_and_a_bad_close_are_failures() -> None:
    verdicts = {"1.1.1": verdict("FAILED"), "7.1.5": verdict(close="WRONG CODE")}

    assert new_failures(verdicts, "", "epoll") == ["epoll 1.1.1 FAILED", "epoll 7.1.5 WRONG-CODE"]


def test_only_the_failure_that_is_allowed_passes_and_only_for_its_engine() -> None:
    verdicts = {"7.1.5": verdict("FAILED")}

    assert new_failures(verdicts, "asgi 7.1.* FAILED  # why", "asgi") == []
    assert new_failures(verdicts, "asgi 7.1.* UNCLEAN", "asgi") == ["asgi 7.1.5 FAILED"]
    assert new_failures(verdicts, "asgi 7.1.* FAILED", "epoll") == ["epoll 7.1.5 FAILED"]


def test_a_rule_that_is_not_needed_any_more_is_a_failure_unless_its_cases_did_not_run() -> None:
    assert new_failures({"7.1.5": verdict()}, "* 7.1.5 FAILED", "asgi") == [
        "asgi 7.1.5 passes now: take it off the list"
    ]
    assert new_failures({"1.1.1": verdict()}, "* 9.* FAILED", "asgi") == []
