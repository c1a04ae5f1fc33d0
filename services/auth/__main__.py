"""`python -m services.auth`: the auth service, configured by the environment."""

from __future__ import annotations

from services.auth.app import NAME, create_app
from services.auth.settings import AuthSettings
from shared.runtime.service import run_service

if __name__ == "__main__":
    run_service(NAME, AuthSettings, create_app)
