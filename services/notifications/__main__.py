"""`python -m services.notifications`: one edge of the notifications, configured by the environment."""

from __future__ import annotations

from services.notifications.app import NAME, create_app
from services.notifications.settings import NotificationsSettings
from shared.runtime.service import run_service

if __name__ == "__main__":
    run_service(NAME, NotificationsSettings, create_app)
