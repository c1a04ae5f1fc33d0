"""The page reads the same table of close codes as the server."""

from __future__ import annotations

import re
from pathlib import Path

from shared.contracts.close_codes import RECONNECT

TABLE = Path(__file__).parents[2] / "services" / "web" / "src" / "client" / "close-codes.ts"


def test_the_client_reconnects_after_the_same_close_codes_as_the_server_says() -> None:
    rows = re.findall(r'^  (\d{4}): "(\w+)", // (\w+)$', TABLE.read_text(), flags=re.MULTILINE)

    assert rows == [(str(code.value), answer.value, code.name) for code, answer in RECONNECT.items()]
