"""`python -m services` (make run): the suite in one process, with a NATS server of its own unless one is named."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from services.auth.demo import ensure_demo_user
from services.auth.settings import AuthSettings
from services.settings import SuiteSettings
from services.suite import create_suite
from shared.broker.provision import provision
from shared.errors import FanfareError, Unauthorized
from shared.runtime.embedded import EmbeddedNats
from shared.runtime.embedded_cluster import EmbeddedCluster
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.server import DrainingServer, listen, make_server, observe, run_loop, settle
from shared.runtime.settings import load_settings

READY_POLL_S = 0.05
WELCOME = """
  Fanfare is up at {url}

  Log in as {user} with the password {password}, or register. Then:
    1. open a private window (or another browser), log in as somebody else, and chat: {url}
    2. watch prices move; add and remove symbols
    3. notify yourself: nats pub -s {nats} notify.user.{user_id} '{{"title":"hi"}}'
       without the nats tool: make notify TO={user_id}

  Ctrl-C stops everything.
"""


async def main(settings: SuiteSettings, lifecycle: Lifecycle) -> int:
    """Run until told to stop; return the process's status."""
    listener = listen(settings)
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with AsyncExitStack() as stack:
        nats_url, nodes = await _start_nats(settings, stack)
        await provision(nats_url, replicas=settings.nats_nodes)
        settings.fanfare_data.mkdir(parents=True, exist_ok=True)
        database_url = settings.database_url or f"sqlite+aiosqlite:///{settings.fanfare_data / 'auth.db'}"
        app = create_suite(settings, lifecycle, nats_url=nats_url, database_url=database_url, base_url=base_url)
        server = make_server(app, settings, lifecycle, on_listening=settle)
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(_welcome(server, lifecycle, settings, database_url, base_url, nats_url))]
            beside += [group.create_task(node.keep()) for node in nodes]
            await server.serve(sockets=[listener])
            for task in beside:
                task.cancel()
    return 1 if lifecycle.failure or not server.started else 0


async def _start_nats(settings: SuiteSettings, stack: AsyncExitStack) -> tuple[str, list[EmbeddedNats]]:
    """Return where NATS is, and the servers that are ours to keep running."""
    if settings.nats_url:
        return settings.nats_url, []
    data: Path = settings.fanfare_data
    if settings.nats_nodes == 1:
        node = await stack.enter_async_context(EmbeddedNats(data / "nats", settings.nats_port))
        return node.url, [node]
    cluster = EmbeddedCluster(data / "nats-cluster", settings.nats_nodes, EmbeddedNats, first_port=settings.nats_port)
    await stack.enter_async_context(cluster)
    return cluster.url, list(cluster.nodes.values())


async def _welcome(
    server: DrainingServer, lifecycle: Lifecycle, settings: SuiteSettings, database_url: str, url: str, nats: str
) -> None:
    """Say where it is and how to begin, once what it says is true."""
    if settings.env != "development":
        return
    try:
        demo = await ensure_demo_user(AuthSettings(database_url=database_url))
    except Unauthorized:
        return  # somebody has registered that name with a password of their own
    await server.listening.wait()
    while await lifecycle.readiness():  # noqa: ASYNC110  # it is asked, it does not tell
        await asyncio.sleep(READY_POLL_S)
    text = WELCOME.format(url=url, user=demo.username, password=demo.password, user_id=demo.user_id, nats=nats)
    print(text, flush=True)


def start() -> None:
    """Start the suite; what keeps it from starting is said in one line."""
    settings = load_settings(SuiteSettings)
    lifecycle = Lifecycle()
    lifecycle.live_logs = observe("suite", settings)
    status = 0

    async def run() -> None:
        nonlocal status
        status = await main(settings, lifecycle)

    try:
        run_loop(run())
    except FanfareError as error:
        raise SystemExit(f"fanfare: {error}") from error
    raise SystemExit(status)


if __name__ == "__main__":
    start()
