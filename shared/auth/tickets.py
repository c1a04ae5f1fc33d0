"""Tickets: browsers cannot set headers on a WebSocket or an EventSource, so the URL carries what dies at once."""

from __future__ import annotations

from shared.auth.principal import Principal
from shared.auth.tokens import TokenVerifier
from shared.broker.port import Broker
from shared.contracts import subjects
from shared.errors import Conflict, Unauthorized

TICKET_TTL_S = 30
_USED_TTL_S = 60
"""How long a used ticket is remembered: longer than any ticket holds, leeway included."""


async def redeem(broker: Broker, verifier: TokenVerifier, ticket: str) -> Principal:
    """Return the ticket's holder, once: of all edges that are shown it, one succeeds.

    Raises:
        Unauthorized: it does not hold, has expired, or was used before.
        Unavailable: whether it was used cannot be known now.
    """
    claims = await verifier.claims(ticket, typ="ticket")
    try:
        await broker.put(subjects.TICKETS, claims.jti, value=b"1", expect=0, ttl_s=_USED_TTL_S)
    except Conflict as error:
        raise Unauthorized("the ticket was used before") from error
    return Principal.from_claims(claims)
