"""What the routes work with: made once in the lifespan, handed to each request."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Counter

from services.auth.clients import Clients
from services.auth.issuer import Issuer
from services.auth.keyring import Keyring
from services.auth.sessions import Sessions
from services.auth.settings import AuthSettings
from services.auth.throttle import Policy, Throttle
from services.auth.users import Users
from shared.auth.tokens import TokenVerifier


@dataclass(frozen=True, slots=True)
class Policies:
    """What too many attempts cost, by kind."""

    account: Policy
    address: Policy
    register: Policy

    @classmethod
    def of(cls, settings: AuthSettings) -> Policies:
        """Return the policies that the settings describe."""
        return cls(
            account=Policy("account", settings.login_free_per_account, base_ms=500, cap_ms=15_000),
            address=Policy("address", settings.login_free_per_address, base_ms=1_000, cap_ms=60_000),
            register=Policy("register", settings.register_free_per_address, base_ms=1_000, cap_ms=60_000),
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """The service's parts."""

    settings: AuthSettings
    users: Users
    clients: Clients
    sessions: Sessions
    issuer: Issuer
    keyring: Keyring
    verifier: TokenVerifier
    throttle: Throttle
    policies: Policies
    logins: Counter
