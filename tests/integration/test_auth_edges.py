"""What the edges see of the auth service: its keys, its tickets, and within a second the end of a session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from services.auth.clients import Clients
from services.auth.database import Database
from services.auth.settings import AuthSettings
from shared.auth.authenticator import Authenticator
from shared.auth.keys import RemoteKeys
from shared.auth.principal import Principal
from shared.auth.revocations import Revocations, revokes
from shared.auth.tokens import TokenVerifier
from shared.broker.jetstream import JetStreamBroker
from shared.contracts.events import Revocation
from shared.contracts.ids import new_id
from shared.errors import FanfareError, SessionRevoked, Unauthorized
from shared.tasks import TaskKeeper
from tests.support.auth_service import RunningAuth, running_auth
from tests.support.nats_server import NatsServer

pytest_plugins = ["tests.support.auth_fixtures"]


class Edge:
    """What a chat or notifications process does about credentials."""

    def __init__(self, authenticator: Authenticator, revocations: Revocations) -> None:
        self.authenticator = authenticator
        self.live: list[Principal] = []
        self.ended: list[Principal] = []
        self.woken = asyncio.Event()
        revocations.on_revoked(self._end)

    async def connect(self, query: str = "", token: str = "") -> Principal:
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        scope = {"type": "websocket", "headers": headers, "query_string": query.encode()}
        holder = await self.authenticator.request(scope)
        self.live.append(holder)
        return holder

    async def ends(self, holder: Principal) -> None:
        """Return when the edge has ended what `holder` had open."""
        async with asyncio.timeout(10):
            while holder not in self.ended:
                self.woken.clear()
                await self.woken.wait()

    def _end(self, revocation: Revocation) -> None:
        self.ended += [holder for holder in self.live if revokes(revocation, holder)]
        self.woken.set()


@asynccontextmanager
async def running_edge(auth: RunningAuth, nats_url: str) -> AsyncIterator[Edge]:
    async with AsyncExitStack() as stack:
        broker = await JetStreamBroker.connect(nats_url, name=f"edge@{new_id()}")
        stack.push_async_callback(broker.close)
        client = await stack.enter_async_context(httpx.AsyncClient())
        keeper = TaskKeeper()
        stack.push_async_callback(keeper.close)
        keys = RemoteKeys(f"{auth.url}/.well-known/jwks.json", client)
        revocations = Revocations(broker)
        keeper.spawn(revocations.run(), "revocations")
        await until(revocations.ready)
        verifier = TokenVerifier(keys, "fanfare", "fanfare")
        yield Edge(Authenticator(verifier, broker, revocations, []), revocations)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until `condition` passes without an error of ours."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await condition()
            except FanfareError:
                await asyncio.sleep(0.02)


@pytest.fixture
def database_url(tmp_path: Any) -> str:
    """SQLite only: what these tests are about lies beyond the database."""
    return f"sqlite:///{tmp_path}/auth.db"


@pytest.fixture
async def edges(auth: RunningAuth, nats_url: str) -> AsyncIterator[tuple[Edge, Edge]]:
    async with running_edge(auth, nats_url) as one, running_edge(auth, nats_url) as other:
        yield one, other


async def new_admin(settings: AuthSettings) -> tuple[str, str]:
    database = Database(settings.database_url)
    made = await Clients(database).add(f"admin-{new_id()}", ["auth:admin"])
    await database.close()
    return made


async def admin_token(auth: RunningAuth) -> str:
    client_id, secret = await new_admin(auth.settings)
    grant = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    token: str = (await auth.post("token", grant)).json()["access_token"]
    return token


async def test_every_edge_knows_a_token_by_the_published_keys(auth: RunningAuth, edges: tuple[Edge, Edge]) -> None:
    session = await auth.new_user()
    holders = [await edge.connect(token=session["access_token"]) for edge in edges]

    assert {holder.user_id for holder in holders} == {session["user"]["id"]}
    assert {holder.username for holder in holders} == {session["user"]["username"]}


async def test_a_ticket_opens_one_connection_over_all_edges(auth: RunningAuth, edges: tuple[Edge, Edge]) -> None:
    session = await auth.new_user()
    ticket = (await auth.post("ticket", token=session["access_token"])).json()
    assert ticket["expires_in"] == 30

    query = f"room=general&ticket={ticket['ticket']}"
    tries = await asyncio.gather(*(edges[n % 2].connect(query) for n in range(20)), return_exceptions=True)

    opened = [one for one in tries if isinstance(one, Principal)]
    assert [holder.user_id for holder in opened] == [session["user"]["id"]]
    assert {type(one) for one in tries if one not in opened} == {Unauthorized}
    me = (await auth.me(session["access_token"])).json()
    assert opened[0].expires_at_s * 1000 == me["expiresAt"]


async def test_logout_ends_what_the_session_has_open_on_every_edge(auth: RunningAuth, edges: tuple[Edge, Edge]) -> None:
    session = await auth.new_user()
    other = await auth.login(session["user"]["username"])
    holders = [await edge.connect(token=session["access_token"]) for edge in edges]
    staying = await edges[0].connect(token=other["access_token"])

    await auth.post("logout", token=session["access_token"])
    began = asyncio.get_running_loop().time()  # how long the database took is not what is bounded
    for edge, holder in zip(edges, holders, strict=True):
        await edge.ends(holder)
        with pytest.raises(SessionRevoked):
            await edge.connect(token=session["access_token"])

    assert asyncio.get_running_loop().time() - began < 1.0
    assert staying not in edges[0].ended
    await edges[1].connect(token=other["access_token"])


async def test_a_stolen_refresh_token_ends_the_session_on_every_edge(
    auth: RunningAuth, edges: tuple[Edge, Edge]
) -> None:
    first = await auth.new_user()
    second = (await auth.post("refresh", {"refresh_token": first["refresh_token"]})).json()
    await auth.post("refresh", {"refresh_token": second["refresh_token"]})
    holders = [await edge.connect(token=second["access_token"]) for edge in edges]

    await auth.post("refresh", {"refresh_token": first["refresh_token"]})

    for edge, holder in zip(edges, holders, strict=True):
        await edge.ends(holder)
        with pytest.raises(SessionRevoked):
            await edge.connect(token=second["access_token"])
    assert [edge.ended for edge in edges] == [[holder] for holder in holders]


async def test_an_administrator_ends_all_sessions_and_the_user_may_log_in_at_once(
    auth: RunningAuth, edges: tuple[Edge, Edge]
) -> None:
    session = await auth.new_user()
    user = session["user"]
    others = await auth.new_user()
    holder = await edges[0].connect(token=session["access_token"])
    bystander = await edges[0].connect(token=others["access_token"])

    admin = await admin_token(auth)
    answer = await auth.post(f"users/{user['id']}/revoke", token=admin)
    assert answer.status_code == 204

    await edges[0].ends(holder)
    assert bystander not in edges[0].ended
    assert (await auth.me(session["access_token"])).json()["code"] == "session_revoked"
    assert (await auth.post("refresh", {"refresh_token": session["refresh_token"]})).status_code == 401
    for _ in range(4):  # within one second, which is all that a token's time can tell apart
        again = await auth.login(user["username"])
        for edge in edges:
            await edge.connect(token=again["access_token"])
        await auth.post(f"users/{user['id']}/revoke", token=admin)
        assert (await auth.me(again["access_token"])).json()["code"] == "session_revoked"


async def test_only_an_administrator_may_revoke(auth: RunningAuth) -> None:
    session = await auth.new_user()
    target = f"users/{session['user']['id']}/revoke"

    assert (await auth.post(target, token=session["access_token"])).status_code == 403
    assert (await auth.post(target)).status_code == 401
    token = await admin_token(auth)
    assert (await auth.post("users/nobody/revoke", token=token)).status_code == 404
    for bad in ("*", "a.b", "x" * 65):
        assert (await auth.post(f"users/{bad}/revoke", token=token)).status_code == 400


async def test_an_edge_that_starts_late_knows_what_was_revoked_before(auth: RunningAuth, nats_url: str) -> None:
    one, all_of = await auth.new_user(), await auth.new_user()
    await auth.post("logout", token=one["access_token"])
    await auth.post(f"users/{all_of['user']['id']}/revoke", token=await admin_token(auth))

    async with running_edge(auth, nats_url) as edge:
        for session in (one, all_of):
            with pytest.raises(SessionRevoked):
                await edge.connect(token=session["access_token"])


async def test_a_logout_while_the_broker_is_away_reaches_the_edges_when_it_is_back(
    database_url: str, nats_server: NatsServer
) -> None:
    settings = AuthSettings(port=0, database_url=database_url, nats_url=nats_server.url)
    async with running_auth(settings) as auth, running_edge(auth, nats_server.url) as edge:
        session = await auth.new_user()
        holder = await edge.connect(token=session["access_token"])

        await nats_server.kill()
        assert (await auth.post("logout", token=session["access_token"])).status_code == 204
        assert (await auth.me(session["access_token"])).json()["code"] == "session_revoked"
        assert (await auth.http.get("/readyz")).status_code == 503
        await nats_server.start()

        async with asyncio.timeout(30):
            await edge.ends(holder)
        with pytest.raises(SessionRevoked):
            await edge.connect(token=session["access_token"])
