"""broadcast: one room, many clients. What one delivery costs a server, beside the cost of `send(2)` itself.

Each server of a group (`bench.groups`) gets one message in turn, and the next one only when all of its clients have it.
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

NAME = "broadcast"

BOUNDS = {
    (fanfare.WEBSOCKET, FLOOR.name): (1.15, 1.9),
    (fanfare.SSE, FLOOR.name): (1.15, 1.9),
    (fanfare.WITHOUT_RING, FLOOR.name): (1.15, 1.9),
    (fanfare.WEBSOCKET, UWEBSOCKETS.name): (1.12, 1.9),
    (fanfare.WEBSOCKET, NODE_WS.name): (0.70, 1.3),
    (fanfare.WEBSOCKET, STOCK_WEBSOCKET.name): (0.50, 0.85),
    (fanfare.SSE, STOCK_SSE.name): (0.50, 0.65),
    (fanfare.WEBSOCKET, CENTRIFUGO.name): (1.0, 1.3),
    (fanfare.WEBSOCKET, CENTRIFUGO_NATS.name): (1.0, 1.3),
    (fanfare.WEBSOCKET, CENTRIFUGO_HISTORY.name): (1.0, 1.3),
    (fanfare.WEBSOCKET, CENTRIFUGE.name): (1.0, 1.3),
    (fanfare.WEBSOCKET, SOCKETIO.name): (0.70, 1.3),
    (fanfare.WEBSOCKET, PYTHON_SOCKETIO.name): (0.50, 0.85),
    (fanfare.WEBSOCKET, CHANNELS.name): (0.25, 0.5),
}


COMPARISON = Comparison(
    name=NAME,
    cost="CPU per delivery",
    bounds=BOUNDS,
    groups=GROUPS,
    size=Size(clients=5_000, turns=20),
    # Channels' in-memory layer looks through all members of all groups whenever one of them receives: with 5,000 a
    # message takes half a minute, and what daphne pings meanwhile is cut off.
    size_of={CHANNELS.name: Size(clients=1_000, turns=20)},
    quick_groups=((FLOOR, UWEBSOCKETS, NODE_WS, STOCK_WEBSOCKET, STOCK_SSE),),
    quick_size=Size(clients=1_000, turns=60),
)
run = COMPARISON.run
