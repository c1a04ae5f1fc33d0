"""Runs the auth service alone: `python -m services.auth`, configured by the environment."""

from __future__ import annotations

from services.auth.app import NAME, create_app
from services.auth.settings import AuthSettings
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.server import run
from shared.runtime.settings import load_settings


def main() -> None:
    """Read the settings, make the app, serve it."""
    settings, lifecycle = load_settings(AuthSettings), Lifecycle()
    run(NAME, create_app(settings, lifecycle=lifecycle), settings, lifecycle)


if __name__ == "__main__":
    main()
