"""Who is let in: how many connections an address may hold, how many may wait before they have said who they are, and
how often an address may come.

Asked before a handshake is answered and before a token is looked at, so that a refusal costs neither: 429 for an
address that has or makes too many, 503 when this process has too many that wait. How many a user may hold is asked when
the user is known (`sessions.py`). An HTTP call is no arrival, but one whose credential does not hold costs what an
arrival costs, and counts as one (`caller`); an address without any is refused its calls too (`guard`).

Counts only: an address costs two entries while it has connections, one number for some seconds after it came, and a
connection nothing but a reference to it.
"""

from __future__ import annotations

import ipaddress
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.auth.authenticator import Authenticator
from shared.auth.credentials import Scope
from shared.auth.principal import Principal
from shared.errors import RateLimited, SessionRevoked, TokenExpired, Unauthorized, Unavailable
from shared.limits import Buckets
from shared.telemetry.metrics import Metrics

RETRY_AFTER_MS = 5_000
ARRIVALS_FOR_EACH = 2
"""How many arrivals an address has at once for each connection that it may hold.

When an edge dies, all that a company's one address held there comes to another at once: one arrival each. After a night
all their tokens have expired as well, and each comes a second time with a fresh one. Whoever is refused by a cap takes
no arrival: they may knock until those who are gone have been noticed.
"""
MAX_ADDRESS_CHARS = 64
NO_ADDRESS = ""
"""Of a peer on a Unix socket: it is not counted, for whoever may open that socket is trusted."""


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Caps of one process; 0 for none.

    Attributes:
        per_address: connections of one address.
        waiting, waiting_per_address: connections that have not said who they are, of all and of one address.
        arrivals_per_s: how many arrivals an address gets back each second, up to ARRIVALS_FOR_EACH times
            `per_address`; none are counted where that is 0, since clients without number may share an address then.
    """

    per_address: int = 0
    waiting: int = 0
    waiting_per_address: int = 0
    arrivals_per_s: float = 0.0


class Admission:
    """Counts connections by address, those among them that wait, and arrivals."""

    def __init__(self, limits: AdmissionLimits, metrics: Metrics, transport: str) -> None:
        self._limits, self._transport = limits, transport
        self._held: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._all_waiting = 0
        waiting = metrics.gauge("connections_waiting", "Clients that have not said who they are", ["transport"])
        waiting.labels(transport).set_function(lambda: self._all_waiting)
        self._refused = metrics.counter("sessions_refused", "Clients refused by a cap", ["transport", "cap"])
        forgotten = metrics.counter("rate_limit_forgotten", "Rate limits that a full table forgot", ["limit"])
        self._arrivals = Buckets(
            limits.arrivals_per_s or 1.0,
            ARRIVALS_FOR_EACH * limits.per_address,
            count_forgotten=forgotten.labels("arrivals").inc,
        )
        self._counts_arrivals = limits.arrivals_per_s > 0 and limits.per_address > 0

    def arrive(self, address: str) -> None:
        """Count an arrival of somebody who says who they are before they `enter`.

        Raises:
            RateLimited: its address has too many connections, or comes too often.
        """
        self._require_place(address)
        self._take_arrival(address)

    def enter(self, address: str, *, waiting: bool) -> None:
        """Count a connection in.

        Args:
            waiting: it has not said who it is; `known` must follow, or `leave`. It is an arrival, too.

        Raises:
            RateLimited: its address has too many, or too many that wait, or comes too often.
            Unavailable: too many wait in all.
        """
        self._require_place(address)
        if waiting:
            self._wait(address)
        self._held[address] += 1

    def guard(self, scope: Scope) -> None:
        """Pass an HTTP call, which takes no arrival.

        Raises:
            RateLimited: no arrival is left to its address.
        """
        if self._counts_arrivals and (wait_s := self._arrivals.wait_s(address_of(scope))):
            self._refuse_arrival(wait_s)

    def charge(self, address: str) -> None:
        """Take an arrival, if one is left, for a call that has cost as much as one."""
        if self._counts(address):
            self._arrivals.take(address)

    def known(self, address: str) -> None:
        """Count a connection out of those that wait: it has said who it is."""
        _count_out(self._waiting, address)
        self._all_waiting -= 1

    def leave(self, address: str, *, waiting: bool) -> None:
        """Count a connection out, and out of those that wait if it still did."""
        if waiting:
            self.known(address)
        _count_out(self._held, address)

    def _wait(self, address: str) -> None:
        if _is_full(self._waiting, address, self._limits.waiting_per_address):
            self._refuse("waiting_address", "too many connections of this address have not said who they are")
        if 0 < self._limits.waiting <= self._all_waiting:
            self._refused.labels(self._transport, "waiting").inc()
            raise Unavailable("too many connections have not said who they are; try again")
        self._take_arrival(address)
        self._waiting[address] += 1
        self._all_waiting += 1

    def _require_place(self, address: str) -> None:
        if _is_full(self._held, address, self._limits.per_address):
            self._refuse("address", f"an address may have {self._limits.per_address} connections to one edge")

    def _take_arrival(self, address: str) -> None:
        if self._counts(address) and (wait_s := self._arrivals.take(address)):
            self._refuse_arrival(wait_s)

    def _counts(self, address: str) -> bool:
        return self._counts_arrivals and address != NO_ADDRESS

    def _refuse_arrival(self, wait_s: float) -> None:
        retry_after_ms = max(RETRY_AFTER_MS, int(wait_s * 1000) + 1)  # one is there sooner, and not for all who wait
        self._refuse("arrivals", "too many connections come from this address", retry_after_ms)

    def _refuse(self, cap: str, message: str, retry_after_ms: int = RETRY_AFTER_MS) -> None:
        self._refused.labels(self._transport, cap).inc()
        raise RateLimited(message, retry_after_ms=retry_after_ms)


async def caller(admission: Admission, authenticator: Authenticator, scope: Scope) -> Principal:
    """Return who makes an HTTP call that `guard` has passed; errors as `authenticator.request`.

    One whose credential does not hold takes an arrival of its address. A token that has expired or was revoked does
    not: it is remembered, and costs no signature's check.
    """
    try:
        return await authenticator.request(scope)
    except (TokenExpired, SessionRevoked):
        raise
    except Unauthorized:
        admission.charge(address_of(scope))
        raise


def address_of(scope: Mapping[str, Any]) -> str:
    """Return the address that a connection counts for, as trusted proxies report it; NO_ADDRESS if it has none.

    An IPv6 client counts by its network of 64 bits, which is what one customer is given at the least (RFC 6177).
    """
    host = str((scope.get("client") or (NO_ADDRESS,))[0])[:MAX_ADDRESS_CHARS]
    # One text for all connections of an address, not one each.
    return sys.intern(_network(host) if ":" in host else host)


def _network(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Address(int(address) >> 64 << 64))


def _is_full(counts: Counter[str], address: str, cap: int) -> bool:
    return 0 < cap <= counts[address] and address != NO_ADDRESS


def _count_out(counts: Counter[str], address: str) -> None:
    counts[address] -= 1
    if counts[address] <= 0:
        del counts[address]
