"""Settings of the suite in one process; each service reads its own as well."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from shared.runtime.settings import ServiceSettings


class SuiteSettings(ServiceSettings):
    """What `make run` reads.

    Attributes:
        fanfare_data: FANFARE_DATA. Where the embedded NATS server and the SQLite database keep what they keep.
        nats_url: NATS_URL. Empty for the embedded server.
        nats_port: NATS_PORT. Where the embedded server listens for producers, on 127.0.0.1 only.
        nats_nodes: NATS_NODES. 3 for an embedded cluster, on NATS_PORT and the two ports after it; its data is apart.
        database_url: DATABASE_URL. Empty for SQLite below FANFARE_DATA.
    """

    drain_s: float = Field(1.0, ge=0, le=600)
    fanfare_data: Path = Path(".data")
    nats_url: str = ""
    nats_port: int = Field(4222, ge=0, le=65535)
    nats_nodes: Annotated[Literal[1, 3], BeforeValidator(int)] = 1
    database_url: str = ""
    log_format: str = "pretty"  # type: ignore[assignment]  # a person reads it
    log_level: str = "warning"  # type: ignore[assignment]
