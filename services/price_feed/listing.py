"""What the simulator quotes: fifty known names at plausible prices, and made-up ones beyond."""

from __future__ import annotations

import random
from dataclasses import dataclass

MAX_SYMBOLS = 5_000


@dataclass(frozen=True, slots=True)
class Instrument:
    """Something with a price. `volatility` is the standard deviation of a trading year's return, 0.3 for 30 %."""

    symbol: str
    price: float
    volatility: float


def listing(count: int) -> list[Instrument]:
    """Return the first `count` instruments, the same ones each time."""
    return (_KNOWN + [_made_up(number) for number in range(len(_KNOWN), count)])[:count]


def _made_up(number: int) -> Instrument:
    dice = random.Random(number)
    return Instrument(f"FAN{number:04d}", round(dice.lognormvariate(4, 0.8), 2), round(dice.uniform(0.15, 0.8), 2))


_KNOWN = [
    Instrument(symbol, price, volatility)
    for symbol, price, volatility in (
        ("AAPL", 232.15, 0.26),
        ("MSFT", 428.50, 0.24),
        ("GOOGL", 178.35, 0.28),
        ("AMZN", 197.93, 0.31),
        ("NVDA", 138.25, 0.48),
        ("META", 563.33, 0.34),
        ("TSLA", 346.00, 0.58),
        ("AVGO", 164.74, 0.42),
        ("AMD", 137.18, 0.47),
        ("INTC", 24.35, 0.44),
        ("ORCL", 192.29, 0.30),
        ("CRM", 338.40, 0.32),
        ("ADBE", 512.15, 0.33),
        ("NFLX", 897.79, 0.36),
        ("CSCO", 58.50, 0.19),
        ("QCOM", 156.00, 0.35),
        ("TXN", 200.25, 0.27),
        ("IBM", 222.97, 0.21),
        ("SHOP", 107.10, 0.52),
        ("UBER", 71.51, 0.38),
        ("JPM", 248.55, 0.22),
        ("BAC", 46.98, 0.26),
        ("WFC", 75.96, 0.27),
        ("GS", 602.78, 0.26),
        ("MS", 133.45, 0.27),
        ("V", 309.92, 0.19),
        ("MA", 520.90, 0.20),
        ("AXP", 301.40, 0.25),
        ("BRK-B", 476.57, 0.15),
        ("PYPL", 86.77, 0.38),
        ("JNJ", 155.17, 0.15),
        ("UNH", 590.87, 0.24),
        ("LLY", 748.01, 0.33),
        ("PFE", 25.58, 0.23),
        ("MRK", 99.18, 0.20),
        ("PG", 176.31, 0.15),
        ("KO", 63.92, 0.14),
        ("PEP", 158.62, 0.16),
        ("WMT", 90.44, 0.19),
        ("COST", 964.01, 0.20),
        ("MCD", 290.23, 0.17),
        ("NKE", 77.35, 0.30),
        ("DIS", 115.65, 0.26),
        ("HD", 410.44, 0.21),
        ("XOM", 121.79, 0.23),
        ("CVX", 162.36, 0.22),
        ("BA", 149.29, 0.35),
        ("CAT", 397.42, 0.27),
        ("GE", 180.99, 0.30),
        ("F", 11.10, 0.37),
    )
]
