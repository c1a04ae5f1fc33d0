"""Caps by address, and on who has not said who they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.edge.admission import NO_ADDRESS, Admission, AdmissionLimits, address_of
from shared.errors import RateLimited, Unavailable
from shared.telemetry.metrics import Metrics


def admission(**limits: float) -> Admission:
    return Admission(AdmissionLimits(**limits), Metrics(), "websocket")  # type: ignore[arg-type]


def test_an_address_has_no_more_connections_than_its_cap_and_another_is_not_concerned() -> None:
    doors = admission(per_address=2)
    doors.enter("a", waiting=False)
    doors.enter("a", waiting=True)
    with pytest.raises(RateLimited) as refused:
        doors.enter("a", waiting=False)

    assert refused.value.retry_after_ms > 0
    doors.enter("b", waiting=False)
    doors.leave("a", waiting=False)
    doors.enter("a", waiting=False)


def test_those_that_wait_are_capped_until_they_are_known_or_leave() -> None:
    doors = admission(waiting=2)
    doors.enter("a", waiting=True)
    doors.enter("b", waiting=True)
    with pytest.raises(Unavailable):
        doors.enter("c", waiting=True)

    doors.enter("c", waiting=False)
    doors.known("a")
    doors.enter("d", waiting=True)
    doors.leave("b", waiting=True)
    doors.enter("e", waiting=True)


def test_one_address_cannot_take_all_places_of_those_that_wait() -> None:
    doors = admission(waiting=100, waiting_per_address=1)
    doors.enter("a", waiting=True)
    with pytest.raises(RateLimited):
        doors.enter("a", waiting=True)

    doors.enter("b", waiting=True)


def test_a_refusal_counts_nothing_in() -> None:
    doors = admission(per_address=1, waiting=1)
    doors.enter("a", waiting=True)
    for address in ("a", "b"):
        with pytest.raises((RateLimited, Unavailable)):
            doors.enter(address, waiting=True)
    doors.leave("a", waiting=True)

    doors.enter("b", waiting=True)


def test_all_that_an_address_may_hold_may_come_twice_at_once_and_then_as_fast_as_its_rate() -> None:
    doors = admission(per_address=3, arrivals_per_s=0.001)
    for _ in range(3):
        doors.enter("a", waiting=True)
    for _ in range(3):
        doors.leave("a", waiting=True)
        doors.arrive("a")
    with pytest.raises(RateLimited) as refused:
        doors.enter("a", waiting=True)

    assert 900_000 < refused.value.retry_after_ms <= 1_000_001
    doors.enter("b", waiting=True)


def test_whoever_a_cap_refuses_may_knock_until_there_is_a_place() -> None:
    doors = admission(per_address=1, waiting_per_address=1, arrivals_per_s=0.001)
    doors.enter("a", waiting=True)
    for knock in (lambda: doors.enter("a", waiting=True), lambda: doors.arrive("a")):
        for _ in range(10):
            with pytest.raises(RateLimited):
                knock()
    doors.leave("a", waiting=True)

    doors.enter("a", waiting=True)


@pytest.mark.parametrize("limits", [{"arrivals_per_s": 0.001}, {"per_address": 1}])
def test_without_a_rate_or_without_a_cap_arrivals_are_not_counted(limits: dict[str, float]) -> None:
    doors = admission(**limits)
    for _ in range(10):
        doors.arrive("a")


def test_peers_without_an_address_have_no_cap_of_their_own() -> None:
    doors = admission(per_address=1, waiting_per_address=1, arrivals_per_s=0.001)
    for _ in range(3):
        doors.enter(NO_ADDRESS, waiting=True)


@given(steps=st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_when_all_have_left_nothing_is_kept(steps: list[tuple[str, bool]]) -> None:
    doors = admission()
    for address, waiting in steps:
        doors.enter(address, waiting=waiting)
    for address, waiting in steps:
        doors.leave(address, waiting=waiting)

    assert (dict(doors._held), dict(doors._waiting), doors._all_waiting) == ({}, {}, 0)


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("10.0.0.1", 1), "10.0.0.1"),
        (("2001:db8:1:2:aaaa::1", 1), "2001:db8:1:2::"),
        (("2001:db8:1:2:bbbb::9", 1), "2001:db8:1:2::"),
        (("fe80::1%eth0", 1), "fe80::"),
        (("::ffff:10.0.0.1", 1), "10.0.0.1"),
        (("a:b:not an address", 0), "a:b:not an address"),
        (("x" * 1_000, 0), "x" * 64),
        (None, NO_ADDRESS),
    ],
)
def test_a_client_counts_by_its_address_and_by_its_network_in_ipv6(client: Any, address: str) -> None:
    assert address_of({"client": client}) == address
