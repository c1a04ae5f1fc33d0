"""A real PostgreSQL for tests: one server for the session, one database for whoever asks."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.contracts.ids import new_id
from tests.support.programs import find_or_install

_LISTEN_TRIES = 120
_ACCOUNT = "postgres"


class PostgresServer:
    """A server that listens on a Unix socket in its own directory, so that no port can be taken."""

    def __init__(self, binaries: Path, directory: Path) -> None:
        self._binaries, self._directory = binaries, directory
        self._data = directory / "data"

    def create(self) -> None:
        """Make the cluster."""
        self._run("initdb", "-D", str(self._data), "-U", _ACCOUNT, "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        """Start it; returns when it accepts connections."""
        options = f"-k {self._directory} -c listen_addresses='' -c fsync=off -c max_connections=100"
        log = str(self._directory / "log")
        self._run("pg_ctl", "-D", str(self._data), "-l", log, "-o", options, "-t", str(_LISTEN_TRIES), "-w", "start")

    def stop(self) -> None:
        """Stop it at once, as a crash would."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        name = f"t{new_id()}"
        self._run("createdb", "-h", str(self._directory), "-U", _ACCOUNT, name)
        return f"postgresql://{_ACCOUNT}@/{name}?host={self._directory}"

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs; as its own account when we are root, which it refuses to be."""
        command = [str(self._binaries / program), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", f"--reuid={_ACCOUNT}", f"--regid={_ACCOUNT}", "--init-groups", *command]
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stderr}")


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Start a server in a directory of its own, and remove both at the end."""
    binaries = find_or_install(_find_binaries, "postgresql")
    directory = Path(tempfile.mkdtemp(prefix="fanfare-pg-"))
    if os.geteuid() == 0:
        account = pwd.getpwnam(_ACCOUNT)
        os.chown(directory, account.pw_uid, account.pw_gid)
    server = PostgresServer(binaries, directory)
    try:
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _find_binaries() -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None
