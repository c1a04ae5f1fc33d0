"""From a connection to its Principal: origin, credential, signature, revocation, in this order."""

from __future__ import annotations

from collections.abc import Collection

from shared.auth.credentials import Credential, CredentialKind, Scope, changes_state, check_origin, find_credential
from shared.auth.principal import Principal
from shared.auth.revocations import Revocations
from shared.auth.tickets import redeem
from shared.auth.tokens import TokenVerifier
from shared.broker.port import Broker
from shared.errors import Unauthorized


class Authenticator:
    """What a service asks about each connection, and about each token that comes later on one."""

    def __init__(
        self, verifier: TokenVerifier, broker: Broker, revocations: Revocations, allowed_origins: Collection[str]
    ) -> None:
        self._verifier, self._broker, self._revocations = verifier, broker, revocations
        self._allowed_origins = allowed_origins

    async def request(self, scope: Scope, *, stream: bool = False) -> Principal:
        """Return who makes this request.

        Args:
            stream: the answer is a stream that a page of another origin must not open.

        Raises:
            Unauthorized: it has no credential that holds; also TokenExpired, SessionRevoked.
            OriginRefused: a page of a foreign origin made it.
            Unavailable: whether its ticket was used before cannot be known now.
        """
        credential = find_credential(scope)
        self.check_origin(scope, credential, stream=stream)
        if credential is None:
            raise Unauthorized
        return await self.holder(credential)

    async def holder(self, credential: Credential) -> Principal:
        """Return whose credential this is; for who has found it and checked its origin. Errors as `request`."""
        if credential.kind is CredentialKind.TICKET:
            return self._standing(await redeem(self._broker, self._verifier, credential.value))
        return await self.token(credential.value)

    async def token(self, token: str) -> Principal:
        """Return the holder of an access token that came in a message; errors as `request`."""
        return self._standing(await self._verifier.verify(token))

    def check_origin(self, scope: Scope, credential: Credential | None, *, stream: bool = False) -> None:
        """Refuse a foreign page on a WebSocket, on a stream, and where the cookie would change something.

        Raises:
            OriginRefused: the page may not.
        """
        cookie_used = credential is not None and credential.kind is CredentialKind.COOKIE
        if stream or scope["type"] == "websocket" or (cookie_used and changes_state(scope)):
            check_origin(scope, self._allowed_origins, cookie_used=cookie_used)

    def _standing(self, principal: Principal) -> Principal:
        self._revocations.check(principal)
        return principal
