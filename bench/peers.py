"""The peers: others' servers, each started as its own documents say, with no compression and no token to check.

Their sources are in `bench/peers`; what they need is installed and built there and in `bench/build`, nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.load import BenchFailed, Door, get, text_frame, upgrade
from bench.servers import Server, poster, running

HERE = Path(__file__).parent
SOURCES, BUILT = HERE / "peers", HERE / "build"
CENTRIFUGE_HELLO = b'{"id":1,"connect":{}}'


@dataclass(frozen=True)
class Peer:
    """Somebody else's server.

    Attributes:
        tool: the program without which it cannot be had.
        build: makes it; run once each time the bench is.
        command: starts it; the port follows as the last argument.
        door: how clients get in, given its port.
        version: what is measured.
    """

    name: str
    tool: str
    build: list[str]
    command: list[str]
    door: Callable[[int], Door]
    version: Callable[[], str]

    async def make(self) -> None:
        """Install or build it.

        Raises:
            BenchFailed: that is not possible here.
        """
        if shutil.which(self.tool) is None:
            raise BenchFailed(f"{self.tool} is not there")
        BUILT.mkdir(exist_ok=True)
        if self.build:
            await _run(self.build)

    @asynccontextmanager
    async def run(self, directory: Path) -> AsyncIterator[Server]:
        """Run it until the block ends."""
        async with AsyncExitStack() as stack:
            log = directory / f"{self.name.replace(' ', '-')}.log"
            pid, port = await stack.enter_async_context(running(self.command, cwd=SOURCES, log=log))
            yield Server(self.name, self.version(), pid, self.door(port), await poster(stack, port))


def websocket_door(port: int, hello: bytes = b"", welcome: bytes = b"\r\n\r\n") -> Door:
    """Return the way into a peer's `/ws`."""
    return Door(port, lambda _number: upgrade("/ws"), welcome, hello)


def _stream_door(port: int) -> Door:
    return Door(port, lambda _number: get("/stream"), b"data: connected")


def centrifuge_door(port: int, channel_of: Callable[[int], str] = lambda _number: "bench") -> Door:
    """Return the way into centrifuge; client `n` is subscribed to `channel_of(n)`."""
    hello = text_frame(CENTRIFUGE_HELLO)
    return Door(port, lambda number: upgrade(f"/ws?channel={channel_of(number)}"), b'"connect"', hello)


def _npm(package: str) -> str:
    found = json.loads((SOURCES / "node_modules" / package / "package.json").read_text())
    return f"{package} {found['version']} (npm)"


def _go_module() -> str:
    line = next(line for line in (SOURCES / "centrifuge" / "go.mod").read_text().splitlines() if "require" in line)
    return f"centrifuge {line.split()[-1]} (Go library)"


NPM_INSTALL = ["npm", "ci", "--silent", "--prefix", str(SOURCES)]
FLOOR = Peer(
    "send(2) loop in C",
    "cc",
    ["cc", "-O2", "-o", str(BUILT / "floor"), str(SOURCES / "floor.c")],
    [str(BUILT / "floor")],
    websocket_door,
    lambda: "bench/peers/floor.c",
)
UWEBSOCKETS = Peer(
    "uWebSockets",
    "npm",
    NPM_INSTALL,
    ["node", "node_uws.js"],
    websocket_door,
    lambda: _npm("uwebsockets"),
)
NODE_WS = Peer("Node ws", "npm", NPM_INSTALL, ["node", "node_ws.js"], websocket_door, lambda: _npm("ws"))
STOCK_WEBSOCKET = Peer(
    "FastAPI on uvicorn",
    sys.executable,
    [],
    [sys.executable, "stock_websocket.py"],
    websocket_door,
    lambda: f"uvicorn {version('uvicorn')}, websockets {version('websockets')}, fastapi {version('fastapi')}",
)
STOCK_SSE = Peer(
    "sse-starlette",
    sys.executable,
    [],
    [sys.executable, "stock_sse.py"],
    _stream_door,
    lambda: f"sse-starlette {version('sse-starlette')}, uvicorn {version('uvicorn')}",
)
CENTRIFUGE = Peer(
    "centrifuge (Go)",
    "go",
    ["go", "build", "-C", str(SOURCES / "centrifuge"), "-o", str(BUILT / "centrifuge"), "."],
    [str(BUILT / "centrifuge")],
    centrifuge_door,
    _go_module,
)
PEERS = (FLOOR, UWEBSOCKETS, NODE_WS, STOCK_WEBSOCKET, STOCK_SSE, CENTRIFUGE)


async def make_peers(wanted: tuple[Peer, ...]) -> list[Peer]:
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
