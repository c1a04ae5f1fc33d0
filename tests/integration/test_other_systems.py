"""An edge on a system that is not Linux: no epoll, no io_uring, fewer options of sockets, and otherwise the same."""

from __future__ import annotations

from pathlib import Path

from shared.contracts.ids import new_id
from tests.support.clients import chat_client, stream_client
from tests.support.edges import Edges

OF_LINUX = {
    "select": ("epoll", "EPOLLIN", "EPOLLOUT", "EPOLLRDHUP", "EPOLLHUP", "EPOLLERR"),
    "socket": ("MSG_NOSIGNAL", "TCP_USER_TIMEOUT", "TCP_NOTSENT_LOWAT"),
    "mmap": ("MAP_POPULATE",),
}


async def test_edges_start_and_serve_where_nothing_of_linux_is_there(edges: Edges, tmp_path: Path) -> None:
    imports = "\n".join(f"import {module}" for module in OF_LINUX)
    removals = "\n".join(f"del {module}.{name}" for module, names in OF_LINUX.items() for name in names)
    (tmp_path / "sitecustomize.py").write_text(f"{imports}\n{removals}\n")
    chat = await edges.process("chat", PYTHONPATH=str(tmp_path), EDGE_ENGINE="")
    notifications = await edges.process("notifications", PYTHONPATH=str(tmp_path), EDGE_ENGINE="")
    room = new_id("room-")
    async with (
        chat_client(chat, new_id("u"), rooms=[room]) as one,
        chat_client(chat, new_id("u"), rooms=[room]) as other,
        stream_client(notifications, new_id("u")) as stream,
    ):
        await one.say("hello")
        await other.hears("hello")

        assert stream.response.headers["content-type"].startswith("text/event-stream")
