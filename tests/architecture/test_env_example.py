"""`.env.example` lists every variable that a service reads, with its default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from services.auth.settings import AuthSettings
from services.chat.settings import ChatSettings
from services.notifications.settings import NotificationsSettings
from services.price_feed.settings import PriceFeedSettings
from services.settings import SuiteSettings
from shared.broker.provision import ProvisionSettings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
SETTINGS = [AuthSettings, ChatSettings, NotificationsSettings, PriceFeedSettings, SuiteSettings, ProvisionSettings]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.__name__)
def test_every_variable_stands_in_env_example_with_its_default(settings: type[BaseSettings]) -> None:
    lines = EXAMPLE.read_text().splitlines()
    missing = [line for name in settings.model_fields if (line := _line(settings, name)) not in lines]

    assert missing == []


def _line(settings: type[BaseSettings], name: str) -> str:
    field = settings.model_fields[name]
    alias = field.validation_alias
    variable = alias.choices[0] if alias is not None else name.upper()  # type: ignore[union-attr]
    return f"#{variable}={'' if field.default_factory else _text(field.default)}"


def _text(value: Any) -> str:
    match value:
        case None | [] | ():
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case _:
            return "" if value is PydanticUndefined else str(value)
