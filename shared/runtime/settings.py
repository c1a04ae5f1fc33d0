"""Settings that every service has, read from the environment only and refused with a clear message when wrong."""

from __future__ import annotations

import re
import select
import socket
import sys
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.contracts.ids import Id, new_id

CommaSeparated = Annotated[list[str], NoDecode]
"""A list written with commas in one variable."""


def default_instance() -> str:
    """Return this process's own name: its host's, and something random, since hosts and containers come back."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:32]
    return f"{host}-{new_id()[:6]}"


class ServiceSettings(BaseSettings):
    """What every service reads. The variable is the field's name in capitals, unless it says otherwise.

    Attributes:
        env: FANFARE_ENV. `production` refuses what is only fit for a developer's machine.
        limits: FANFARE_LIMITS. `off` lifts caps and rate limits for benchmarks; development only.
        host, port: where to listen; port 0 lets the system choose.
        admin_port: where an operator of this machine may shed clients; 127.0.0.1 only, 0 for nowhere.
        nats_url: NATS servers, comma separated, each with user and password where needed.
        allowed_origins: pages of other origins that may connect with a cookie, e.g. `https://app.example.com`.
        trusted_proxies: addresses or networks whose X-Forwarded-For and -Proto are believed; never `*`.
        auth_jwks_url: where the public keys are that tokens are checked with.
        auth_issuer, auth_audience: what tokens must name as `iss` and `aud`.
        log_level, log_format: debug, info, warning or error; json, or pretty for a person at a terminal.
        logs_live_level: the lowest level of log records that dashboards are told, as far as `log_level` lets them be
            logged at all; `off` for none.
        drain_s: over how long open connections are asked to leave at a stop, in seconds.
        edge_engine: `epoll` takes connections out of uvicorn after the handshake; `asgi` leaves them there: the same
            behaviour, for more memory and time.
        edge_io_uring: `auto` sends what goes to many through io_uring where the kernel and its policy give it; `off`
            makes a call of each write.
        instance: INSTANCE. This process's name on the bus: an id.
        max_body_bytes: HTTP request bodies above this are refused with 413.
        max_header_bytes: request line and headers above this are refused with 431.
        header_timeout_s: a request whose headers are not complete after this is closed.
        body_timeout_s: a request whose body is not complete after this is closed.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    env: Literal["development", "production"] = Field("development", validation_alias=AliasChoices("FANFARE_ENV"))
    limits: Literal["on", "off"] = Field("on", validation_alias=AliasChoices("FANFARE_LIMITS"))
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    admin_port: int = Field(0, ge=0, le=65535)
    nats_url: str = "nats://127.0.0.1:4222"
    allowed_origins: CommaSeparated = []
    trusted_proxies: CommaSeparated = []
    auth_jwks_url: str = "http://127.0.0.1:8081/.well-known/jwks.json"
    auth_issuer: str = "fanfare"
    auth_audience: str = "fanfare"
    drain_s: float = Field(15.0, ge=0, le=600)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "pretty"] = "json"
    logs_live_level: Literal["debug", "info", "warning", "error", "off"] = "warning"
    edge_engine: Literal["epoll", "asgi"] = "epoll" if hasattr(select, "epoll") else "asgi"
    edge_io_uring: Literal["auto", "off"] = "auto"
    instance: Id = Field(default_factory=default_instance)
    max_body_bytes: int = Field(64 * 1024, ge=1024)
    max_header_bytes: int = Field(64 * 1024, ge=1024)
    header_timeout_s: float = Field(10.0, gt=0)
    body_timeout_s: float = Field(30.0, gt=0)

    @field_validator("allowed_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",") if part.strip()]
        return value

    @model_validator(mode="after")
    def _refuse_unsafe(self) -> ServiceSettings:
        if self.limits == "off" and self.env != "development":
            raise ValueError("FANFARE_LIMITS=off is for benchmarks: it is refused unless FANFARE_ENV=development")
        if "*" in self.trusted_proxies:
            raise ValueError("TRUSTED_PROXIES=* would let every client choose its own address: name the proxies")
        return self

    @property
    def limited(self) -> bool:
        """Whether caps and rate limits are in force."""
        return self.limits == "on"


SettingsT = TypeVar("SettingsT", bound=ServiceSettings)


def load_settings(kind: type[SettingsT], **given: Any) -> SettingsT:
    """Read the environment, or end the process with one line for each setting that is wrong.

    Args:
        given: settings that are known already, whatever the environment says.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        _refuse(error)


def _refuse(error: ValidationError) -> NoReturn:
    for problem in error.errors(include_input=False, include_url=False):
        name = str(problem["loc"][0]).upper() if problem["loc"] else "settings"
        sys.stderr.write(f"fanfare: {name}: {problem['msg']}\n")
    raise SystemExit(2)
