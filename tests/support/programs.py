"""Programs that tests run beside Python and Node: found, or installed where this machine lets us."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")


def find_or_install(find: Callable[[], Found | None], package: str) -> Found:
    """Return what `find` finds, once Debian's `package` is installed if it finds nothing before.

    Raises:
        RuntimeError: it is not there, and cannot be had here.
    """
    if (found := find()) is not None:
        return found
    _install(package)
    if (found := find()) is not None:
        return found
    raise RuntimeError(f"this test needs a program that is not in PATH: install it (Debian: {package})")


def in_path(*names: str) -> Callable[[], str | None]:
    """Return a search for the first of `names` that is in PATH."""
    return lambda: next(filter(None, map(shutil.which, names)), None)


def _install(package: str) -> None:
    """Install it, if we may; one process of a test run at a time, since apt takes no turns."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    with (Path(tempfile.gettempdir()) / "fanfare-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], check=True)
