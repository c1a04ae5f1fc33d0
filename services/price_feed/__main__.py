"""Runs the price feed alone: `python -m services.price_feed`, configured by the environment."""

from __future__ import annotations

import sys

from services.price_feed.app import create_app
from services.price_feed.feed import NAME
from services.price_feed.settings import PriceFeedSettings
from shared.errors import BadInput
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.server import run
from shared.runtime.settings import load_settings


def main() -> None:
    """Read the settings, build the app, serve until told to stop."""
    settings, lifecycle = load_settings(PriceFeedSettings), Lifecycle()
    try:
        app = create_app(settings, lifecycle=lifecycle)
    except BadInput as error:
        sys.stderr.write(f"fanfare: PRICE_CSV: {error}\n")
        raise SystemExit(2) from None
    run(NAME, app, settings, lifecycle)


if __name__ == "__main__":
    main()
