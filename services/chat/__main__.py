"""`python -m services.chat`: one edge of the chat, configured by the environment."""

from __future__ import annotations

from services.chat.app import create_app
from services.chat.settings import ChatSettings
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.server import run
from shared.runtime.settings import load_settings


def main() -> None:
    """Start the service and serve until told to stop."""
    settings = load_settings(ChatSettings)
    lifecycle = Lifecycle()
    run("chat", create_app(settings, lifecycle=lifecycle), settings, lifecycle)


if __name__ == "__main__":
    main()
