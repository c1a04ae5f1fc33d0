"""Run the price feed alone: `python -m services.price_feed`."""

from __future__ import annotations

import sys

from services.price_feed.app import create_app
from services.price_feed.settings import PriceFeedSettings
from shared.errors import BadInput
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.server import run
from shared.runtime.settings import load_settings


def main() -> None:
    """Read the settings, build the app, serve until told to stop."""
    settings = load_settings(PriceFeedSettings)
    lifecycle = Lifecycle()
    try:
        app = create_app(settings, lifecycle=lifecycle)
    except BadInput as error:
        sys.stderr.write(f"fanfare: PRICE_CSV: {error}\n")
        raise SystemExit(2) from None
    run("price_feed", app, settings, lifecycle)


if __name__ == "__main__":
    main()
