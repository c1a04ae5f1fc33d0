"""Settings of the notifications service; the variable is the field's name in capitals."""

from __future__ import annotations

from pydantic import Field

from shared.runtime.settings import ServiceSettings


class NotificationsSettings(ServiceSettings):
    """What an edge of the notifications allows.

    Attributes:
        heartbeat_s: a comment is sent on each stream this often, so that proxies and clients know it lives.
        retry_ms: the mean of the `retry:` that a client is given; each gets its own, within a half.
        max_topics, max_symbols: what one stream may follow.
        default_rate_hz, max_rate_hz, min_rate_hz: price flushes a second for one client, as it may ask.
        stale_after_s: prices are flagged stale when neither a tick nor the feed's heartbeat came for this long.
        max_streams_per_user, max_streams_per_address, max_streams: connections to this process; 0 for no cap. Behind a
            proxy that is not in `trusted_proxies`, all clients have one address.
        arrival_rate_hz: new connections of one address, calls whose credential does not hold among them: so many a
            second, and at once twice as many as it may hold (`max_streams_per_address`); 0 for no limit, and none where
            that cap is 0. Why so many: see the chat's settings.
        call_rate_hz, call_burst: HTTP calls of one user, opening a stream among them: so many a second, and so many at
            once.
        backlog_bytes: what a slow client may have waiting before its stream is ended; it resumes with its cursor.
        send_timeout_s: a stream whose client takes nothing for this long is ended, at the next heartbeat.
        expiry_warning_s: how long before its token expires a client is warned.
    """

    port: int = Field(8083, ge=0, le=65535)
    heartbeat_s: float = Field(15.0, gt=0)
    retry_ms: int = Field(2_000, ge=100)
    max_topics: int = Field(20, ge=0, le=64)
    max_symbols: int = Field(1_000, ge=1)
    default_rate_hz: float = Field(10.0, gt=0)
    max_rate_hz: float = Field(50.0, gt=0)
    min_rate_hz: float = Field(0.1, gt=0)
    stale_after_s: float = Field(2.0, gt=0)
    max_streams_per_user: int = Field(20, ge=0)
    max_streams_per_address: int = Field(2_000, ge=0)
    max_streams: int = Field(19_000, ge=0)
    arrival_rate_hz: float = Field(100.0, ge=0)
    call_rate_hz: float = Field(10.0, gt=0)
    call_burst: int = Field(100, ge=1)
    backlog_bytes: int = Field(1 << 20, ge=256 * 1024)
    send_timeout_s: float = Field(30.0, gt=0)
    expiry_warning_s: float = Field(30.0, ge=0)
