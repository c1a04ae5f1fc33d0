"""What one connection may ask of its edge: commands, typing notices, and frames that are wrong or refused.

Neither messages nor what is relayed are counted here: they are limited for each user (`throttle.py`, `relay.py`).
"""

from __future__ import annotations

from services.chat.settings import ChatSettings
from shared.limits import TokenBucket

TYPING_RATE_HZ = 5.0


class Allowance:
    """One connection's; made when it first asks for something, since most only listen.

    Attributes:
        typing: pays for typing notices, which have a rate of their own, so that they never cost a command.
    """

    __slots__ = ("_commands", "_limited", "_refusals_left", "typing")

    def __init__(self, settings: ChatSettings) -> None:
        self._limited, self._refusals_left = settings.limited, settings.refused_before_close
        self._commands = TokenBucket(rate_per_s=settings.command_rate_hz, burst=settings.command_burst)
        self.typing = TokenBucket(rate_per_s=TYPING_RATE_HZ, burst=TYPING_RATE_HZ)

    def require_command(self) -> None:
        """Pay for a command. Raises RateLimited if there were too many."""
        if self._limited:
            self._commands.require("commands on this connection")

    def bears_wrong_frame(self) -> bool:
        """Pay for a frame that was wrong, as for a command; False if the connection is not to be borne any longer."""
        return not self._limited or self._commands.take()

    def bears_refusal(self) -> bool:
        """Count a frame that a limit has refused; False if there were too many of them."""
        self._refusals_left -= 1
        return self._refusals_left > 0
