"""The peers: others' servers, each started as its own documents say, with no compression and no token to check.

Their sources are in `bench/peers`; what they need is installed and built there and in `bench/build`, nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Protocol, TypeVar

from bench.load import BenchFailed, Door, get, text_frame, upgrade
from bench.servers import Server, poster, running
from shared.runtime.embedded import EmbeddedNats

HERE = Path(__file__).parent
SOURCES, BUILT = HERE / "peers", HERE / "build"
CENTRIFUGO_MODULE = "github.com/centrifugal/centrifugo/v6"
CENTRIFUGE_HELLO = b'{"id":1,"connect":{}}'


@dataclass(frozen=True)
class Peer:
    """Somebody else's server.

    Attributes:
        tool: the program without which it cannot be had.
        build: commands that make `product` from `source`; run when that is newer.
        command: starts it; the port follows as the last argument.
        door: how clients get in, given its port.
        version: what is measured.
        post: the path and the body that publish a text over the peer's own HTTP.
        nats_variable: tells it where NATS is; one that has this gets a nats-server of its own, which counts apart.
        does: with a message, in a few words; what makes its cost one that Fanfare's may be compared with, or not.
    """

    name: str
    tool: str
    build: list[list[str]]
    product: Path
    source: Path
    command: list[str]
    door: Callable[[int], Door]
    version: Callable[[], str]
    post: Callable[[str], tuple[str, str]] = lambda text: ("/publish", text)
    nats_variable: str = ""
    does: str = ""

    async def make(self) -> None:
        """Install or build it.

        Raises:
            BenchFailed: that is not possible here.
        """
        if shutil.which(self.tool) is None:
            raise BenchFailed(f"{self.tool} is not there")
        BUILT.mkdir(exist_ok=True)
        if not self.product.exists() or self.product.stat().st_mtime < self.source.stat().st_mtime:
            for command in self.build:
                await _run(command)
            self.product.touch()

    @asynccontextmanager
    async def run(self, directory: Path) -> AsyncIterator[Server]:
        """Run it until the block ends."""
        async with AsyncExitStack() as stack:
            place = directory / self.name.replace(" ", "-")
            environment, beside = dict[str, str](), dict[str, int]()
            if self.nats_variable:
                nats = await stack.enter_async_context(EmbeddedNats(place))
                environment, beside = {self.nats_variable: nats.url}, {"nats-server": nats.pid}
            log = place.with_suffix(".log")
            pid, port = await stack.enter_async_context(running(self.command, environment, cwd=SOURCES, log=log))
            publish = await poster(stack, port, self.post)
            yield Server(self.name, self.version(), pid, self.door(port), publish, beside)


class AnyPeer(Protocol):
    """What can be measured beside Fanfare."""

    @property
    def name(self) -> str:
        """What the tables call it."""

    async def make(self) -> None:
        """Install or build it."""

    def run(self, directory: Path) -> AbstractAsyncContextManager[Server]:
        """Run it until the block ends."""


PeerT = TypeVar("PeerT", bound=AnyPeer)


def websocket_door(port: int) -> Door:
    """Return the way into a peer's `/ws`."""
    return Door(port, lambda _number: upgrade("/ws"), b"\r\n\r\n")


def _stream_door(port: int) -> Door:
    return Door(port, lambda _number: get("/stream"), b"data: connected")


def centrifuge_door(port: int, channel_of: Callable[[int], str] = lambda _number: "bench") -> Door:
    """Return the way into centrifuge; client `n` is subscribed to `channel_of(n)`."""
    hello = text_frame(CENTRIFUGE_HELLO)
    return Door(port, lambda number: upgrade(f"/ws?channel={channel_of(number)}"), b'"connect"', lambda _number: hello)


def _socketio_door(port: int) -> Door:
    """Return the way into Socket.IO: a Socket.IO CONNECT inside an Engine.IO MESSAGE ("40"), answered in kind."""
    path = "/socket.io/?EIO=4&transport=websocket"
    return Door(port, lambda _number: upgrade(path), b'40{"sid"', lambda _number: text_frame(b"40"))


def centrifugo_door(port: int, channel_of: Callable[[int], str] = lambda _number: "bench") -> Door:
    """Return the way into Centrifugo; client `n` subscribes to `channel_of(n)`."""

    def hello(number: int) -> bytes:
        subscribe = {"id": 2, "subscribe": {"channel": channel_of(number)}}
        return text_frame(CENTRIFUGE_HELLO + b"\n" + json.dumps(subscribe).encode())

    return Door(port, lambda number: upgrade("/connection/websocket"), b'"subscribe"', hello)


def _npm(package: str) -> str:
    found = json.loads((SOURCES / "node_modules" / package / "package.json").read_text())
    return f"{package} {found['version']} (npm)"


def _go_module(folder: str, module: str) -> str:
    """Return a module with the version that `go.mod` requires."""
    required = re.search(rf"{module}(?:/v\d+)? (v\S+)", (SOURCES / folder / "go.mod").read_text())
    return f"{module} {required[1] if required else '?'}"


def _node_peer(name: str, package: str, script: str, door: Callable[[int], Door] = websocket_door) -> Peer:
    return Peer(
        name=name,
        tool="npm",
        build=[["npm", "ci", "--silent", "--prefix", str(SOURCES)]],
        product=SOURCES / "node_modules" / ".package-lock.json",
        source=SOURCES / "package-lock.json",
        command=["node", script],
        door=door,
        version=lambda: _npm(package),
    )


PYTHON = BUILT / "python"
REQUIREMENTS = SOURCES / "requirements.txt"


def _venv_peer(name: str, script: str, door: Callable[[int], Door], packages: Sequence[str]) -> Peer:
    """Return a Python peer that needs more than this environment has, and gets one for itself."""
    python = str(PYTHON / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]
    return Peer(
        name=name,
        tool=sys.executable,
        build=[[sys.executable, "-m", "venv", "--clear", str(PYTHON)], [*pip, "-r", str(REQUIREMENTS)]],
        product=PYTHON / "made",
        source=REQUIREMENTS,
        command=[python, script],
        door=door,
        version=lambda: _installed(packages),
    )


def _installed(packages: Sequence[str]) -> str:
    """Return the versions in the peers' own environment."""
    found = {found.metadata["Name"].lower(): found.version for found in distributions(path=_site_packages())}
    return ", ".join(f"{package} {found[package]}" for package in packages)


def _site_packages() -> list[str]:
    return [str(folder) for folder in PYTHON.glob("lib/python*/site-packages")]


def _python_peer(name: str, script: str, door: Callable[[int], Door], packages: Sequence[str]) -> Peer:
    """Return a peer that needs nothing but this environment."""
    return Peer(
        name=name,
        tool=sys.executable,
        build=[],
        product=SOURCES / script,
        source=SOURCES / script,
        command=[sys.executable, script],
        door=door,
        version=lambda: ", ".join(f"{package} {version(package)}" for package in packages),
    )


FLOOR = Peer(
    name="send(2) loop in C",
    tool="cc",
    build=[["cc", "-O2", "-o", str(BUILT / "floor"), str(SOURCES / "floor.c")]],
    product=BUILT / "floor",
    source=SOURCES / "floor.c",
    command=[str(BUILT / "floor")],
    door=websocket_door,
    version=lambda: "bench/peers/floor.c",
)
UWEBSOCKETS = _node_peer("uWebSockets", "uwebsockets", "node_uws.js")
NODE_WS = _node_peer("Node ws", "ws", "node_ws.js")
STOCK_WEBSOCKET = _python_peer(
    "FastAPI on uvicorn", "stock_websocket.py", websocket_door, ("fastapi", "uvicorn", "websockets")
)
STOCK_SSE = _python_peer("sse-starlette", "stock_sse.py", _stream_door, ("sse-starlette", "uvicorn"))
CENTRIFUGE = Peer(
    name="centrifuge (Go)",
    tool="go",
    build=[["go", "build", "-C", str(SOURCES / "centrifuge"), "-o", str(BUILT / "centrifuge"), "."]],
    product=BUILT / "centrifuge",
    source=SOURCES / "centrifuge" / "main.go",
    command=[str(BUILT / "centrifuge")],
    door=centrifuge_door,
    version=lambda: _go_module("centrifuge", "centrifugal/centrifuge"),
    does="in its own memory, nothing kept",
)


def _centrifugo(name: str, configuration: str, does: str, nats_variable: str = "") -> Peer:
    """Return Centrifugo with a configuration of `bench/peers/centrifugo`."""
    folder, program = SOURCES / "centrifugo", str(BUILT / "centrifugo")
    return Peer(
        name=name,
        tool="go",
        build=[["go", "build", "-C", str(folder), "-o", program, CENTRIFUGO_MODULE]],
        product=BUILT / "centrifugo",
        source=folder / "go.mod",
        command=[program, "--config", str(folder / configuration), "--http_server.port"],
        door=centrifugo_door,
        version=lambda: _go_module("centrifugo", "centrifugal/centrifugo"),
        post=lambda text: ("/api/publish", json.dumps({"channel": "bench", "data": text})),
        nats_variable=nats_variable,
        does=does,
    )


CENTRIFUGO = _centrifugo("Centrifugo", "memory.json", "in its own memory, nothing kept")
CENTRIFUGO_HISTORY = _centrifugo(
    "Centrifugo with history", "history.json", "kept in its own memory, lost with the process; one node only"
)
CENTRIFUGO_NATS = _centrifugo(
    "Centrifugo over NATS", "nats.json", "through NATS to all nodes, nothing kept", "CENTRIFUGO_BROKER_NATS_URL"
)
"""As it runs on several nodes without Redis. Its NATS broker keeps no history (`ErrorNotAvailable` in its source)."""
SOCKETIO = _node_peer("Socket.IO", "socket.io", "node_socketio.js", _socketio_door)
PYTHON_SOCKETIO = _venv_peer(
    "python-socketio", "python_socketio.py", _socketio_door, ("python-socketio", "uvicorn", "websockets")
)
CHANNELS = _venv_peer("Django Channels", "django_channels.py", websocket_door, ("channels", "daphne", "django"))


async def make_peers(wanted: tuple[PeerT, ...]) -> list[PeerT]:
    """Return those that can be had here, made; say why of the others."""
    made = []
    for peer in wanted:
        try:
            await peer.make()
            made.append(peer)
        except BenchFailed as error:
            print(f"without {peer.name}: {error}")
    return made


async def _run(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    if process.returncode:
        raise BenchFailed(f"{' '.join(command[:2])} failed: {said.decode()[-300:]}")
