"""What the price feed reads from its environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from services.price_feed.listing import MAX_SYMBOLS
from shared.runtime.settings import ServiceSettings


class PriceFeedSettings(ServiceSettings):
    """Settings of the price feed.

    Attributes:
        price_rate: simulated ticks per second over all symbols.
        price_seed: the same seed gives the same simulated prices.
        price_symbols: how many symbols are simulated: fifty known ones, made-up ones beyond.
        price_csv: a recording (`timestamp_ms,symbol,price`) to replay instead of simulating.
        price_csv_speed: 1.0 is the rhythm of the recording, 2.0 twice as fast.
        price_csv_loop: begin anew at the recording's end; otherwise the feed falls silent there.
    """

    price_rate: float = Field(50.0, gt=0, le=100_000)
    price_seed: int = 1
    price_symbols: int = Field(50, ge=1, le=MAX_SYMBOLS)
    price_csv: Path | None = None
    price_csv_speed: float = Field(1.0, gt=0, le=10_000)
    price_csv_loop: bool = True
