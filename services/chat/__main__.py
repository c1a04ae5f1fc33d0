"""`python -m services.chat`: one edge of the chat, configured by the environment."""

from __future__ import annotations

from services.chat.app import NAME, create_app
from services.chat.settings import ChatSettings
from shared.runtime.service import run_service

if __name__ == "__main__":
    run_service(NAME, ChatSettings, create_app)
