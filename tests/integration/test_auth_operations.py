"""What operators do: start replicas, rotate keys, add clients, stop the process, read its logs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from services.auth import keyring as keyring_module
from services.auth.clients import Clients
from services.auth.database import Database
from services.auth.demo import ensure_demo_user
from services.auth.keyring import DatabaseKeys, DirectoryKeys, Keyring
from services.auth.migrate import migrate
from services.auth.models import Base
from services.auth.settings import AuthSettings
from shared.auth.keys import RemoteKeys
from shared.auth.tokens import TokenVerifier
from shared.clock import now_ms
from shared.errors import BadInput, Forbidden, NotFound, Unauthorized, Unavailable
from tests.support.auth_service import PASSWORD, RunningAuth, running_auth
from tests.support.edges import until_ready
from tests.support.postgres import postgres_server

pytest_plugins = ["tests.support.auth_fixtures"]

ROOT = Path(__file__).parents[2]


def environment(settings: AuthSettings) -> dict[str, str]:
    return os.environ | {"DATABASE_URL": settings.database_url, "NATS_URL": settings.nats_url}  # noqa: TID251


async def command(settings: AuthSettings, *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        cwd=ROOT,
        env=environment(settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def published(auth: RunningAuth) -> list[str]:
    answer = await auth.http.get("/.well-known/jwks.json")
    assert "private" not in answer.text
    assert all(set(key) == {"kty", "crv", "use", "alg", "kid", "x"} for key in answer.json()["keys"])
    return [key["kid"] for key in answer.json()["keys"]]


async def test_three_replicas_that_start_at_once_make_one_schema_and_one_set_of_keys(settings: AuthSettings) -> None:
    async with AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as starting:
            tasks = [starting.create_task(stack.enter_async_context(running_auth(settings))) for _ in range(3)]
        replicas = [task.result() for task in tasks]
        keys = [await published(replica) for replica in replicas]
        session = await replicas[0].new_user()
        answers = [await replica.me(session["access_token"]) for replica in replicas]

    assert keys[0] == keys[1] == keys[2]
    assert len(keys[0]) == 2
    assert {answer.status_code for answer in answers} == {200}


async def test_the_schema_is_the_models(settings: AuthSettings) -> None:
    database = Database(settings.database_url)
    await migrate(database)
    async with database.transaction() as tx:
        connection = await tx.connection()
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), Base.metadata)
        )
    await database.close()

    assert differences == []


async def test_a_rotation_refuses_no_token(settings: AuthSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring_module, "RELOAD_S", 0.05)
    async with running_auth(settings) as auth, httpx.AsyncClient() as http:
        edge = TokenVerifier(RemoteKeys(f"{auth.url}/.well-known/jwks.json", http), "fanfare", "fanfare")
        session = await auth.new_user()
        before = await published(auth)
        assert len(before) == 2
        await edge.verify(session["access_token"])

        status, output = await command(settings, "services.auth.keyring", "rotate")
        assert status == 0, output
        async with asyncio.timeout(10):
            while len(after := await published(auth)) < 3:
                await asyncio.sleep(0.02)
        fresh = await auth.login(session["user"]["username"])

        assert kid_of(session["access_token"]) == before[0]
        assert kid_of(fresh["access_token"]) == before[1]
        assert after[:2] == before
        for token in (session["access_token"], fresh["access_token"]):
            assert (await auth.me(token)).status_code == 200
            await edge.verify(token)


async def test_keys_rotate_by_time_and_retire(settings: AuthSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(settings.database_url)
    await migrate(database)
    store = DatabaseKeys(database, rotate_s=10_000, lead_s=900, token_life_s=600)
    start = now_ms()

    async def at(seconds: int) -> tuple[str, list[str]]:
        monkeypatch.setattr(keyring_module, "now_ms", lambda: start + seconds * 1000)
        ring = Keyring(store)
        await ring.load()
        return ring.signing().kid, [key["kid"] for key in ring.jwks()["keys"]]

    first, keys = await at(0)
    second = keys[1]
    assert keys == [first, second]
    assert await at(9_990) == (first, [first, second])
    signing, keys = await at(10_010)
    third = keys[2]
    assert (signing, keys) == (second, [first, second, third])
    assert await at(10_000 + 600 + 900 - 10) == (second, [first, second, third])
    assert await at(10_000 + 600 + 900 + 10) == (second, [second, third])
    signing, keys = await at(50_000)
    assert signing == third
    assert keys[-1] not in {first, second, third}
    await database.close()


def write_key(path: Path) -> None:
    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


async def test_mounted_keys_are_used_and_followed(tmp_path: Path) -> None:
    ring = Keyring(DirectoryKeys(tmp_path))
    with pytest.raises(Unavailable, match="no key"):
        await ring.load()
    write_key(tmp_path / "next.pem")
    with pytest.raises(Unavailable):
        await ring.load()
    write_key(tmp_path / "signing.pem")
    await ring.load()
    old = ring.signing().kid
    assert len(ring.jwks()["keys"]) == 2

    (tmp_path / "signing.pem").rename(tmp_path / "old.pem")
    (tmp_path / "next.pem").rename(tmp_path / "signing.pem")
    await ring.load()
    assert ring.signing().kid != old
    assert await ring.key(old) is not None

    (tmp_path / "old.pem").write_text("no key")
    with pytest.raises(Unavailable, match="cannot be read"):
        await ring.load()
    assert ring.signing().kid != old


async def test_a_client_signs_in_by_form_json_and_header(auth: RunningAuth) -> None:
    status, output = await command(
        auth.settings, "services.auth.clients", "add", "ticker", "--scope", "notify:write", "--scope", "topic:news"
    )
    assert status == 0, output
    made = dict(line.split("=", 1) for line in output.splitlines())
    grant = {"grant_type": "client_credentials"} | made
    basic = httpx.BasicAuth(made["client_id"], made["client_secret"])
    answers = [
        await auth.post("token", grant),
        await auth.post("token", data=grant),
        await auth.post("token", data={"grant_type": "client_credentials"}, auth=basic),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert answer.json()["scope"] == "notify:write topic:news"
    me = (await auth.me(answers[0].json()["access_token"])).json()
    assert (me["username"], me["id"]) == ("ticker", made["client_id"])

    narrow = (await auth.post("token", grant | {"scope": "topic:news"})).json()
    assert narrow["scope"] == "topic:news"
    assert (await auth.post("token", grant | {"scope": "auth:admin"})).status_code == 403
    for wrong in ({"client_secret": "x"}, {"client_id": "nobody"}):
        assert (await auth.post("token", grant | wrong)).status_code == 401
    for bad in ({"client_id": "*"}, {"grant_type": "password"}, {"client_secret": ""}):
        assert (await auth.post("token", grant | bad)).status_code == 400

    status, output = await command(auth.settings, "services.auth.clients", "add", "ticker")
    assert (status, output) == (1, "there is a client ticker already\n")
    database = Database(auth.settings.database_url)
    clients = Clients(database)
    assert await clients.names() == [("ticker", made["client_id"], "notify:write topic:news")]
    with pytest.raises(BadInput, match="everything"):
        await clients.add("x", ["everything"])
    await clients.remove("ticker")
    with pytest.raises(NotFound):
        await clients.remove("ticker")
    await database.close()
    assert (await auth.post("token", grant)).status_code == 401


async def test_the_demo_account_is_for_development_only(settings: AuthSettings) -> None:
    demo = await ensure_demo_user(settings)
    assert await ensure_demo_user(settings) == demo
    async with running_auth(settings) as auth:
        assert (await auth.login(demo.username, demo.password))["user"]["id"] == demo.user_id
        assert (await auth.http.get("/api/auth/demo")).json() == {"available": True}

    production = settings.model_copy(update={"env": "production"})
    with pytest.raises(Forbidden):
        await ensure_demo_user(production)
    async with running_auth(production) as auth:
        for name in (demo.username, "DEMO"):
            assert (await auth.post("login", {"username": name, "password": demo.password})).status_code == 401
        assert (await auth.http.get("/api/auth/demo")).json() == {"available": False}


async def test_readiness_asks_the_database_and_the_broker(auth: RunningAuth) -> None:
    assert (await auth.http.get("/readyz")).json() == {"status": "ready"}
    assert (await auth.http.get("/healthz")).status_code == 200
    metrics = (await auth.http.get("/metrics")).text
    assert "fanfare_auth_logins_total" in metrics
    assert "fanfare_argon2_in_flight" in metrics


async def test_while_the_database_is_away_logins_fail_fast_and_then_go_on(nats_url: str) -> None:
    with postgres_server() as server:
        settings = AuthSettings(port=0, database_url=server.new_database(), nats_url=nats_url)
        async with running_auth(settings) as auth:
            session = await auth.new_user()
            body = {"username": session["user"]["username"], "password": PASSWORD}

            await asyncio.to_thread(server.stop)
            async with asyncio.timeout(5):
                answers = await asyncio.gather(*(auth.post("login", body) for _ in range(5)))
                answers.append(await auth.post("refresh", {"refresh_token": session["refresh_token"]}))
            assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(503, "unavailable")] * 6
            assert "database" in (await auth.http.get("/readyz")).json()["reasons"]
            assert (await auth.http.get("/.well-known/jwks.json")).status_code == 200
            await asyncio.to_thread(server.start)

            assert await auth.login(body["username"])
            assert (await auth.http.get("/readyz")).status_code == 200


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p%40x@db/auth", "postgresql+asyncpg://u:p%40x@db/auth"),
        ("postgresql://u@db/auth", "postgresql+asyncpg://u@db/auth"),
        ("sqlite:////data/auth.db", "sqlite+aiosqlite:////data/auth.db"),
    ],
)
def test_database_addresses_are_taken_as_people_write_them(given: str, used: str) -> None:
    assert AuthSettings(database_url=given).database_url == used


@pytest.mark.parametrize("given", ["mysql://db/auth", "auth.db", ""])
def test_other_databases_are_refused_with_a_reason(given: str) -> None:
    with pytest.raises(ValidationError, match="database"):
        AuthSettings(database_url=given)


async def test_alone_as_a_process_it_serves_stops_cleanly_and_logs_no_secret(
    settings: AuthSettings, unused_tcp_port: int
) -> None:
    more = {"HOST": "127.0.0.1", "PORT": str(unused_tcp_port)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.auth",
        cwd=ROOT,
        env=environment(settings) | more,
        stderr=asyncio.subprocess.PIPE,
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{unused_tcp_port}") as http:
        await until_ready(http)
        body: dict[str, Any] = {"username": "ann", "password": PASSWORD}
        await http.post("/api/auth/register", json=body)
        session = (await http.post("/api/auth/login", json=body)).json()
        await http.get("/api/auth/me", params={"token": session["access_token"], "ticket": "TICKET-8471"})
        await http.get("/api/auth/me", headers={"authorization": f"Bearer {session['access_token']}x"})
        await http.post("/api/auth/refresh", json={"refresh_token": session["refresh_token"]})
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        _, errors = await process.communicate()

    logs = errors.decode()
    assert '"path": "/api/auth/login"' in logs
    for secret in (PASSWORD, session["access_token"], session["refresh_token"], "TICKET-8471"):
        assert secret not in logs
    assert process.returncode in {0, -signal.SIGTERM, 128 + signal.SIGTERM}


async def test_a_verifier_of_another_issuer_knows_none_of_these_tokens(auth: RunningAuth) -> None:
    session = await auth.new_user()
    async with httpx.AsyncClient() as http:
        keys = RemoteKeys(f"{auth.url}/.well-known/jwks.json", http)
        for names in (("other", "fanfare"), ("fanfare", "other")):
            with pytest.raises(Unauthorized):
                await TokenVerifier(keys, *names).verify(session["access_token"])
