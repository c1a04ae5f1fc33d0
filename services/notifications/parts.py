"""What the streams and routes of the notifications stand on, made once for each app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from services.notifications.logs import LogBoard
from services.notifications.notices import Notices
from services.notifications.prices import PriceBoard
from services.notifications.settings import NotificationsSettings
from services.notifications.statuses import StatusBoard
from services.notifications.watchlists import Watchlists
from shared.auth.authenticator import Authenticator
from shared.edge.admission import Admission
from shared.edge.commands import Commands
from shared.edge.delivery.overflow import OverflowLimits
from shared.edge.line.hub import LineHub
from shared.edge.sessions import Sessions
from shared.edge.timers import Wheel
from shared.edge.turns import Turns
from shared.edge.wire.pool import Pool
from shared.limits import Buckets
from shared.tasks import TaskKeeper


@dataclass(frozen=True, slots=True)
class NotificationsParts:
    """The nouns of the service.

    Attributes:
        calls: how many HTTP calls a user may make; None for any number.
        turns: of those who come; who is in goes before a herd.
    """

    settings: NotificationsSettings
    admission: Admission
    authenticator: Authenticator
    calls: Buckets | None
    commands: Commands
    limits: OverflowLimits
    line: LineHub
    logs: LogBoard
    notices: Notices
    pool: Pool | None
    prices: PriceBoard
    sessions: Sessions
    statuses: StatusBoard
    tasks: TaskKeeper
    turns: Turns
    watchlists: Watchlists
    wheel: Wheel


class State(TypedDict):
    """The lifespan state: what `request.state` offers."""

    notifications: NotificationsParts
