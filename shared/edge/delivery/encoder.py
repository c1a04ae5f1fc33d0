"""An encoder: how the stored messages of a stream become events."""

from __future__ import annotations

from collections.abc import Callable

from shared.broker.port import Message
from shared.edge.delivery.event import Event

Encoder = Callable[[Message, str], Event]
"""Validates a stored message and encodes it once, given the epoch; raises BadInput for what must reach no client."""
