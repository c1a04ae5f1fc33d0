"""Error lines of the log, counted: what an alert asks for where nobody reads the log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from shared.telemetry.metrics import Metrics


@contextmanager
def count_errors(metrics: Metrics) -> Iterator[None]:
    """Count what is logged at `error` or above meanwhile, a library's lines as well as ours.

    The counter has no label: it is there, and 0, before the first error, and only so does a query see that one as an
    increase. Which error it was stands in the log.
    """
    handler = _Counting(metrics)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


class _Counting(logging.Handler):
    def __init__(self, metrics: Metrics) -> None:
        super().__init__(logging.ERROR)
        self._counted = metrics.counter("errors_logged", "Lines in the log that say error")

    def emit(self, record: logging.LogRecord) -> None:
        """Count one line."""
        self._counted.inc()
