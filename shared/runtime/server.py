"""Runs an app under uvicorn, and stops it in the right order: drain first, then uvicorn's own shutdown.

uvicorn closes every socket the moment it is told to stop, and runs the lifespan's end only after that: too late to ask
anybody to leave (ADR 0006). So the first signal starts the drain, and only its end lets uvicorn begin. A second signal
stops at once.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, cast

import uvicorn

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

from shared.contracts.events import MAX_LOG_BYTES
from shared.edge.wire.gate import Door, Gate
from shared.edge.wire.guards import GuardedHttpProtocol, GuardedWebSocketProtocol
from shared.edge.wire.http_protocol import HandOverHttpProtocol
from shared.runtime.admin import ADMIN_HOST
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.settings import ServiceSettings
from shared.telemetry.errors_logged import count_errors
from shared.telemetry.live_logs import LiveLogs
from shared.telemetry.logs import configure_logs
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import configure_tracing

BACKLOG = 8192
KEEP_ALIVE_S = 75  # longer than the 60 s of common proxies, or they meet a socket that just closed
CLOSE_BACKSTOP_S = 3
MAX_WS_MESSAGE_BYTES = 256 * 1024  # the session refuses far less, with a reason; this bounds memory before it can
HALF_OPEN_MS = 30_000
COLLECT_AFTER = (10_000, 20, 100)  # a connect frees what it used without the collector; see `settle`
UNSENT_BYTES = 128 * 1024
"""What the kernel takes of a client that does not keep up, beyond what is under way to it.

Else it is up to 4 MiB a client (tcp_wmem) before the edge sees a full socket, and only then the backlog's bound begins.
It limits no fast client: what the network holds is not counted.
"""

RESERVED_DESCRIPTORS = 32  # for the links to NATS, the database, the keys: a full edge must be able to reconnect


class DrainingServer(uvicorn.Server):
    """uvicorn's server with a drain before its shutdown, and an end when the process has failed."""

    def __init__(
        self, config: uvicorn.Config, lifecycle: Lifecycle, metrics: Metrics, on_listening: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._metrics = metrics
        self._lifecycle, self._on_listening = lifecycle, on_listening
        self.listening = asyncio.Event()
        self._gate: Gate | None = None
        self.port = 0
        self._stop_asked = False
        self._drain: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop; what is logged as an error meanwhile is counted."""
        with count_errors(self._metrics):
            await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take SIGTERM or SIGINT: the first drains, the second stops at once."""
        if self._stop_asked:
            # Not by way of uvicorn's forced exit: what the lifespan gives back at its end may wait for a broker.
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self._stop_asked = True

    async def on_tick(self, counter: int) -> bool:
        """Every 100 ms: begin the drain when asked, exit when it is done."""
        if self._lifecycle.failure:
            self.should_exit = True
        if self._stop_asked and self._drain is None:
            self._drain = asyncio.get_running_loop().create_task(self._lifecycle.drain(), name="drain")
        if self._drain is not None and self._drain.done():
            self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; once connections are taken, `listening` is set, and `port` the first socket's."""
        if not sockets:
            raise ValueError("no socket to listen on: see `listen`")
        self.port = sockets[0].getsockname()[1]
        await super().startup(sockets[1:] if self._staying else sockets)
        if self._staying:
            sockets[0].listen(BACKLOG)
            self._gate = Gate(sockets[0], self._door())
            self._gate.open()
        self._on_listening()
        self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: accept no more, then end what is open."""
        if self._gate is not None:
            await self._gate.close()
        await super().shutdown(sockets)

    @property
    def _staying(self) -> frozenset[str]:
        """What a gate is for; nothing where connections cannot leave uvicorn."""
        can_leave = isinstance(self.config.http, type) and issubclass(self.config.http, HandOverHttpProtocol)
        return getattr(self.config.app, "staying", frozenset()) if can_leave else frozenset()

    def _door(self) -> Door:
        """Return what stands behind the gate: the app as uvicorn has it, and uvicorn's protocol for all else."""
        state, protocol = self.lifespan.state, cast("type[HandOverHttpProtocol]", self.config.http)
        return Door(
            self.config.loaded_app,
            self._staying,
            state,
            lambda: protocol(config=self.config, server_state=self.server_state, app_state=state),
            lambda: self.server_state.default_headers,
        )


def make_server(
    app: Any, settings: ServiceSettings, lifecycle: Lifecycle, on_listening: Callable[[], None] = lambda: None
) -> DrainingServer:
    """Return the server for `app` with all of the suite's bounds set."""
    metrics = getattr(getattr(app, "state", None), "metrics", None) or Metrics()  # any ASGI app will do
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=_http_protocol(settings, metrics),
        ws=GuardedWebSocketProtocol,
        ws_max_size=MAX_WS_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        ws_ping_interval=20.0,
        ws_ping_timeout=20.0,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=CLOSE_BACKSTOP_S,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
    )
    return DrainingServer(config, lifecycle, metrics, on_listening)


def _http_protocol(settings: ServiceSettings, metrics: Metrics) -> type[GuardedHttpProtocol]:
    """Return the protocol class with this service's limits; uvicorn takes a class, not an object."""
    base = HandOverHttpProtocol if settings.edge_engine == "epoll" else GuardedHttpProtocol
    refused = metrics.counter("connections_refused", "Connections closed over what their clients did", ["reason"])
    begun = metrics.tally("connections_begun", "Connections by the way they are served", "way")
    limits = {
        "max_header_bytes": settings.max_header_bytes,
        "header_timeout_s": settings.header_timeout_s,
        "max_fd": allow_descriptors() - RESERVED_DESCRIPTORS,
        "waiting": {},
        "count_refused": staticmethod(lambda reason: refused.labels(reason).inc()),
        "count_begun": staticmethod(begun.add),
    }
    return type(base.__name__, (base,), limits)


def allow_descriptors() -> int:
    """Allow this process as many descriptors as it may allow itself; return how many."""
    if resource is None:
        return sys.maxsize
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def listen(settings: ServiceSettings) -> socket.socket:
    """Return the listening socket, whose options every accepted one inherits (Linux).

    Half-open peers are dropped by the kernel after HALF_OPEN_MS of unread data: SSE has no answer to its comments that
    would show a dead peer.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, HALF_OPEN_MS)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        sys.stderr.write(f"fanfare: cannot listen on {settings.host}:{settings.port}: {error.strerror}\n")
        raise SystemExit(1) from error
    listener.setblocking(False)
    return listener


def run(name: str, app: Any, settings: ServiceSettings, lifecycle: Lifecycle) -> None:
    """Serve until told to stop; ends the process with status 1 if it failed, 0 after a clean stop."""
    lifecycle.live_logs = observe(name, settings)
    server = make_server(app, settings, lifecycle, on_listening=settle)
    sockets = [listen(settings)]
    if settings.admin_port:
        sockets.append(listen(settings.model_copy(update={"host": ADMIN_HOST, "port": settings.admin_port})))
    run_loop(server.serve(sockets=sockets))
    if lifecycle.failure or not server.started:
        raise SystemExit(1)


def settle() -> None:
    """Keep the collector of cycles off what stays: once, when a process that serves and does nothing else has started.

    What it has made by then is there for good, and thousands of idle connections are as well: going over them again and
    again was a tenth of a connect. What is dropped is freed by its count; few things refer to themselves.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def observe(name: str, settings: ServiceSettings) -> LiveLogs | None:
    """Start logs and traces of this process; once, from main. Return what it is to tell live, if anything."""
    live: LiveLogs | None = None
    if settings.logs_live_level != "off":
        live = LiveLogs(name, settings.instance, settings.logs_live_level, max_bytes=MAX_LOG_BYTES)
    pretty = settings.log_format == "pretty"
    configure_logs(settings.log_level, service=name, instance=settings.instance, pretty=pretty, live=live)
    logging.getLogger("uvicorn.error").addFilter(_is_no_clients_fault)
    configure_tracing(name, settings.instance)
    return live


def _is_no_clients_fault(record: logging.LogRecord) -> bool:
    """Whether to log what uvicorn says: it warns of each request that nobody can read; these are counted instead."""
    return record.levelno != logging.WARNING


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on the fastest loop there is."""
    factory = None
    if sys.platform != "win32":
        import uvloop  # noqa: PLC0415  # not to be had on Windows

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)
