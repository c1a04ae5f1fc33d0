"""Settings of the chat service; the variable is the field's name in capitals."""

from __future__ import annotations

from pydantic import Field

from shared.contracts.ids import Id
from shared.runtime.settings import ServiceSettings


class ChatSettings(ServiceSettings):
    """What an edge of the chat allows.

    Attributes:
        default_room: DEFAULT_ROOM. Where a client is that names no room.
        auth_deadline_s: a WebSocket that came without a credential must send one within this.
        heartbeat_s: a client that heard nothing for 2.5 times this should reconnect.
        message_limit, message_window_s: messages of one user in a window of time, over all edges.
        command_rate_hz, command_burst: joins, leaves, marks, pings, renewals and wrong frames of a connection, HTTP
            calls of a user: so many a second, and so many at once.
        relay_rate_hz: what a user may have relayed by this edge, each KiB that is begun counting as one: so many a
            second, and as many at once.
        refused_before_close: frames refused by a limit on one connection before it is closed with 4029.
        max_rooms_per_socket: rooms that one WebSocket may follow.
        max_rooms_per_user: rooms that one user may own, over all edges; 0 for no cap.
        max_sockets_per_user, max_sockets_per_address, max_sockets: connections to this process; 0 for no cap. Behind a
            proxy that is not in `trusted_proxies`, all clients have one address.
        max_waiting, max_waiting_per_address: connections that have not said who they are; 0 for no cap.
        arrival_rate_hz: new connections of one address, calls whose credential does not hold among them: so many a
            second, and at once twice as many as it may hold (`max_sockets_per_address`); 0 for no limit, and none where
            that cap is 0. A herd that comes from one address when an edge has died is within the two thousand twice.
            After that, 100 a second let each of its 2,000 connections come anew every 20 s, as after every page of a
            site; and who does nothing but come takes less than a tenth of a core for what is let in.
        backlog_bytes: what a slow client may have waiting before it is closed with 4080.
        expiry_warning_s: how long before its token expires a client is warned.
    """

    port: int = Field(8082, ge=0, le=65535)
    default_room: Id = "general"
    auth_deadline_s: float = Field(5.0, gt=0)
    heartbeat_s: float = Field(25.0, gt=0)
    message_limit: int = Field(100, ge=1)
    message_window_s: int = Field(60, ge=1)
    command_rate_hz: float = Field(10.0, gt=0)
    command_burst: int = Field(100, ge=1)
    relay_rate_hz: float = Field(60.0, ge=16)
    refused_before_close: int = Field(50, ge=1)
    max_rooms_per_socket: int = Field(50, ge=1)
    max_rooms_per_user: int = Field(100, ge=0, le=500)
    max_sockets_per_user: int = Field(20, ge=0)
    max_sockets_per_address: int = Field(2_000, ge=0)
    max_sockets: int = Field(19_000, ge=0)
    max_waiting: int = Field(2_000, ge=0)
    max_waiting_per_address: int = Field(500, ge=0)
    arrival_rate_hz: float = Field(100.0, ge=0)
    backlog_bytes: int = Field(1 << 20, ge=64 * 1024)
    expiry_warning_s: float = Field(30.0, ge=0)
