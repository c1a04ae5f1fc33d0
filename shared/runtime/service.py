"""Starts a service that has a process of its own: settings, app, server; the same way for all of them."""

from __future__ import annotations

import sys
from typing import Any, Protocol, TypeVar

from shared.errors import BadInput
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.server import run
from shared.runtime.settings import ServiceSettings, load_settings

SettingsT = TypeVar("SettingsT", bound=ServiceSettings)
SettingsT_contra = TypeVar("SettingsT_contra", bound=ServiceSettings, contravariant=True)


class CreateApp(Protocol[SettingsT_contra]):
    """How every service makes its app."""

    def __call__(self, settings: SettingsT_contra, /, *, lifecycle: Lifecycle) -> Any:
        """Return the app. Raises BadInput for what a setting names, with the setting's name."""


def run_service(name: str, kind: type[SettingsT], create_app: CreateApp[SettingsT]) -> None:
    """Read the environment, make the app, and serve until told to stop.

    Ends the process with status 2, and one line for each setting that is wrong; else as `run` does.
    """
    settings, lifecycle = load_settings(kind), Lifecycle()
    try:
        app = create_app(settings, lifecycle=lifecycle)
    except BadInput as error:
        sys.stderr.write(f"fanfare: {error}\n")
        raise SystemExit(2) from None
    run(name, app, settings, lifecycle)
