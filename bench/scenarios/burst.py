"""burst: one room, many clients, and twenty messages at once. What a delivery costs that does not come alone.

The servers of the broadcast, in its groups (`bench.groups`). Each message is a request of its own, the requests of a
burst are sent together, and the next burst when all clients have all of it. What a server makes of that is its own
affair: most write each message to each client by itself; Fanfare (ADR 19), uWebSockets and Centrifugo join some.
"""

from __future__ import annotations

from bench import fanfare
from bench.groups import GROUPS, Comparison, Size
from bench.peers import (
    CENTRIFUGE,
    CENTRIFUGO,
    CENTRIFUGO_HISTORY,
    CENTRIFUGO_NATS,
    CHANNELS,
    FLOOR,
    NODE_WS,
    PYTHON_SOCKETIO,
    SOCKETIO,
    STOCK_SSE,
    STOCK_WEBSOCKET,
    UWEBSOCKETS,
)

NAME = "burst"
AT_ONCE = 20
TOO_DEAR = ((PYTHON_SOCKETIO,), (CHANNELS,))
"""A delivery of theirs costs ten and forty times the others', so a burst takes them a quarter of a minute and more."""

BOUNDS = {
    (fanfare.WEBSOCKET, FLOOR.name): (0.25, 1.2),
    (fanfare.SSE, FLOOR.name): (0.25, 1.2),
    (fanfare.WEBSOCKET, UWEBSOCKETS.name): (1.12, 1.9),
    (fanfare.WEBSOCKET, NODE_WS.name): (0.25, 1.2),
    (fanfare.WEBSOCKET, STOCK_WEBSOCKET.name): (0.25, 1.2),
    (fanfare.SSE, STOCK_SSE.name): (0.25, 1.2),
    (fanfare.WEBSOCKET, SOCKETIO.name): (0.25, 1.2),
    (fanfare.WEBSOCKET, CENTRIFUGO.name): (0.5, 1.0),
    (fanfare.WEBSOCKET, CENTRIFUGO_NATS.name): (0.5, 1.0),
    (fanfare.WEBSOCKET, CENTRIFUGO_HISTORY.name): (0.5, 1.0),
    (fanfare.WEBSOCKET, CENTRIFUGE.name): (0.5, 1.0),
}

COMPARISON = Comparison(
    name=NAME,
    cost="CPU per delivery of a burst",
    bounds=BOUNDS,
    groups=[group for group in GROUPS if group not in TOO_DEAR],
    size=Size(clients=5_000, turns=5, at_once=AT_ONCE),
    quick_groups=((FLOOR,),),
    quick_size=Size(clients=1_000, turns=5, at_once=AT_ONCE),
)
run = COMPARISON.run
