"""Simulated prices: seeded geometric Brownian motion, the same ticks for the same seed at any pace of pulling."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from services.price_feed.listing import Instrument
from services.price_feed.source import Batch, Pulse, count_at
from shared.contracts.events import PriceTick

TRADING_YEAR_S = 252 * 6.5 * 3600
"""Volatilities are per year of trading hours."""

DRIFT = 0.05
MIN_PRICE, MAX_PRICE = 0.01, 1e9


class Simulator:
    """Moves each instrument in turn, in an order shuffled anew each round, `ticks_per_s` over all of them.

    Each tick moves its symbol by the time that lies between two of its ticks at the nominal rate. So the path depends
    on the seed and the starting point only, never on when it was pulled. `position` is the number of ticks made;
    a successor that resumes at one draws a path of its own instead of repeating the beginning.
    """

    def __init__(self, instruments: Sequence[Instrument], *, seed: int, ticks_per_s: float) -> None:
        self._instruments = {each.symbol: each for each in instruments}
        self._name, self._ticks_per_s = f"simulator:{seed}", ticks_per_s
        self._step_years = len(instruments) / ticks_per_s / TRADING_YEAR_S
        self._pulse = Pulse()
        self.resume({}, "")

    @property
    def symbols(self) -> Sequence[str]:
        """All symbols of the listing."""
        return list(self._instruments)

    @property
    def position(self) -> str:
        """`simulator:<seed>:<number of ticks made>`."""
        return f"{self._name}:{self._made}"

    def resume(self, last: Mapping[str, float], position: str) -> None:
        """See `PriceSource.resume`. Symbols without a last price open at their listed price with the next batch."""
        self._made = count_at(position, self._name)
        self._random = random.Random(self.position)
        self._exact = {symbol: last.get(symbol, each.price) for symbol, each in self._instruments.items()}
        self._shown = {symbol: last[symbol] for symbol in self._instruments if symbol in last}
        self._round: list[str] = []
        self._owed = 0.0
        self._pulse.restart()

    def next_batch(self, now_ms: int) -> Batch:
        """See `PriceSource.next_batch`."""
        opening = [symbol for symbol in self._instruments if symbol not in self._shown]
        step_ms, lost_ms = self._pulse.step(now_ms)
        self._owed += step_ms * self._ticks_per_s / 1000
        due = int(self._owed)
        self._owed -= due
        ticks = [self._tick(symbol, now_ms) for symbol in opening]
        ticks += [self._tick(self._move(), now_ms) for _ in range(due)]
        return Batch(ticks, skipped=int(lost_ms * self._ticks_per_s / 1000))

    def _move(self) -> str:
        """Move the next symbol and return it."""
        if not self._round:
            self._round = list(self._instruments)
            self._random.shuffle(self._round)
        symbol = self._round.pop()
        sigma = self._instruments[symbol].volatility
        mean = (DRIFT - sigma**2 / 2) * self._step_years
        shock = sigma * math.sqrt(self._step_years) * self._random.gauss(0, 1)
        self._exact[symbol] = min(max(self._exact[symbol] * math.exp(mean + shock), MIN_PRICE), MAX_PRICE)
        self._made += 1
        return symbol

    def _tick(self, symbol: str, now_ms: int) -> PriceTick:
        # The exact price moves on unrounded: rounded, a cheap and calm symbol would never leave its cent.
        exact = self._exact[symbol]
        price = round(exact, 2 if exact >= 1 else 4)
        previous, self._shown[symbol] = self._shown.get(symbol, price), price
        return PriceTick(symbol=symbol, price=price, timestamp=now_ms, previous=previous)
