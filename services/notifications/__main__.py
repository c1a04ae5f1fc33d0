"""`python -m services.notifications`: one edge of the notifications, configured by the environment."""

from __future__ import annotations

from services.notifications.app import create_app
from services.notifications.settings import NotificationsSettings
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.server import run
from shared.runtime.settings import load_settings


def main() -> None:
    """Start the service and serve until told to stop."""
    settings = load_settings(NotificationsSettings)
    lifecycle = Lifecycle()
    run("notifications", create_app(settings, lifecycle=lifecycle), settings, lifecycle)


if __name__ == "__main__":
    main()
