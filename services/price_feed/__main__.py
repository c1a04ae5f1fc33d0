"""`python -m services.price_feed`: the price feed, or a standby for it, configured by the environment."""

from __future__ import annotations

from services.price_feed.app import create_app
from services.price_feed.feed import NAME
from services.price_feed.settings import PriceFeedSettings
from shared.runtime.service import run_service

if __name__ == "__main__":
    run_service(NAME, PriceFeedSettings, create_app)
