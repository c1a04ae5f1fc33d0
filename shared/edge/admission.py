"""Who is let in: how many connections an address may hold, and how many may wait before they have said who they are.

Asked before a handshake is answered, so that a refusal costs no connection: 429 for an address that has too many, 503
when this process has too many that wait. How many a user may hold is asked when the user is known (`sessions.py`).

Counts only: an address costs two entries while it has connections, and a connection nothing but a reference to it.
"""

from __future__ import annotations

import ipaddress
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import RateLimited, Unavailable
from shared.telemetry.metrics import Metrics

RETRY_AFTER_MS = 5_000
MAX_ADDRESS_CHARS = 64
NO_ADDRESS = ""
"""Of a peer on a Unix socket: it is not counted, for whoever may open that socket is trusted."""


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Caps of one process; 0 for none.

    Attributes:
        per_address: connections of one address.
        waiting, waiting_per_address: connections that have not said who they are, of all and of one address.
    """

    per_address: int = 0
    waiting: int = 0
    waiting_per_address: int = 0


class Admission:
    """Counts connections by address, and those among them that wait."""

    def __init__(self, limits: AdmissionLimits, metrics: Metrics, transport: str) -> None:
        self._limits, self._transport = limits, transport
        self._held: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._all_waiting = 0
        waiting = metrics.gauge("connections_waiting", "Clients that have not said who they are", ["transport"])
        waiting.labels(transport).set_function(lambda: self._all_waiting)
        self._refused = metrics.counter("sessions_refused", "Clients refused by a cap", ["transport", "cap"])

    def enter(self, address: str, *, waiting: bool) -> None:
        """Count a connection in.

        Args:
            waiting: it has not said who it is; `known` must follow, or `leave`.

        Raises:
            RateLimited: its address has too many, or too many that wait.
            Unavailable: too many wait in all.
        """
        if _is_full(self._held, address, self._limits.per_address):
            self._refuse("address", f"an address may have {self._limits.per_address} connections to one edge")
        if waiting:
            self._wait(address)
        self._held[address] += 1

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
        self._waiting[address] += 1
        self._all_waiting += 1

    def _refuse(self, cap: str, message: str) -> None:
        self._refused.labels(self._transport, cap).inc()
        raise RateLimited(message, retry_after_ms=RETRY_AFTER_MS)


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
