"""Accounts, sessions and tokens from register to logout, on both databases, over HTTP."""

from __future__ import annotations

import asyncio
from http.cookies import SimpleCookie
from typing import Any

import httpx
import jwt
import pytest
from sqlalchemy import func, select, update

from services.auth import sessions as sessions_module
from services.auth.database import Database
from services.auth.models import RefreshToken, Revoked, Session
from services.auth.revocations import RevocationLog
from services.auth.sessions import SessionLimits
from services.auth.settings import AuthSettings
from services.auth.users import Users
from shared.clock import now_ms
from shared.contracts.claims import USER_SCOPES
from shared.errors import RateLimited
from shared.telemetry.metrics import Metrics
from tests.support.auth_service import PASSWORD, RunningAuth, running_auth
from tests.support.waiting import eventually

pytest_plugins = ["tests.support.auth_fixtures"]


async def test_from_register_to_logout(auth: RunningAuth) -> None:
    made = await auth.post("register", {"username": "Ann", "password": PASSWORD, "displayName": "Ann B."})
    assert made.status_code == 201
    assert made.json() == {"id": made.json()["id"], "username": "Ann", "displayName": "Ann B."}

    session = await auth.login("ANN")
    assert session["user"] == made.json()
    assert (session["token_type"], session["expires_in"], session["scope"]) == ("Bearer", 600, USER_SCOPES)

    me = await auth.me(session["access_token"])
    assert me.json()["id"] == made.json()["id"]
    assert me.json()["scopes"] == sorted(USER_SCOPES.split())
    assert me.headers["cache-control"] == "no-store"

    renewed = (await auth.post("refresh", {"refresh_token": session["refresh_token"]})).json()
    assert renewed["user"] == made.json()
    assert renewed["refresh_token"] != session["refresh_token"]
    assert (await auth.me(renewed["access_token"])).json()["session"] == me.json()["session"]

    assert (await auth.post("logout", token=renewed["access_token"])).status_code == 204
    for token in (session["access_token"], renewed["access_token"]):
        assert (await auth.me(token)).json()["code"] == "session_revoked"
    refused = await auth.post("refresh", {"refresh_token": renewed["refresh_token"]})
    assert (refused.status_code, refused.json()["code"]) == (401, "session_revoked")
    assert (await auth.post("logout", token=renewed["access_token"])).status_code == 204


async def test_a_browser_needs_its_cookies_only(auth: RunningAuth) -> None:
    await auth.post("register", {"username": "ann", "password": PASSWORD})
    async with httpx.AsyncClient(base_url=auth.url) as browser:
        answer = await browser.post("/api/auth/login", json={"username": "ann", "password": PASSWORD})
        cookies = SimpleCookie("; ".join(answer.headers.get_list("set-cookie")))
        assert (await browser.get("/api/auth/me")).status_code == 200
        first = browser.cookies["auth_refresh"]
        assert (await browser.post("/api/auth/refresh")).status_code == 200
        assert browser.cookies["auth_refresh"] != first
        assert (await browser.post("/api/auth/logout")).status_code == 204
        assert not browser.cookies

    header = answer.headers.get_list("set-cookie")
    assert all("HttpOnly" in line and "Secure" not in line for line in header)
    assert "Path=/;" in header[0]
    assert "SameSite=lax" in header[0]
    assert "Path=/api/auth" in header[1]
    assert "SameSite=strict" in header[1]
    assert cookies["auth_token"].value.count(".") == 2


async def test_cookies_are_secure_when_a_trusted_proxy_speaks_https(settings: AuthSettings) -> None:
    behind_tls = settings.model_copy(update={"trusted_proxies": ["127.0.0.1"]})
    async with running_auth(behind_tls) as auth:
        body = {"username": "ann", "password": PASSWORD}
        await auth.post("register", body)
        answer = await auth.post("login", body, headers={"x-forwarded-proto": "https"})

    assert all("Secure" in line for line in answer.headers.get_list("set-cookie"))


@pytest.mark.parametrize("taken", ["Ann", "aNN", "\uff21nn"])
async def test_a_name_that_looks_the_same_is_taken(auth: RunningAuth, taken: str) -> None:
    await auth.post("register", {"username": "Ann", "password": PASSWORD})
    answer = await auth.post("register", {"username": taken, "password": PASSWORD})

    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_of_fifty_who_register_one_name_at_once_one_gets_it(auth: RunningAuth, replica: RunningAuth) -> None:
    body = {"username": "ann", "password": PASSWORD}
    answers = await asyncio.gather(*((auth, replica)[n % 2].post("register", body) for n in range(50)))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 49


async def test_fifty_refreshes_of_one_token_at_once_have_one_outcome(auth: RunningAuth, replica: RunningAuth) -> None:
    body = {"refresh_token": (await auth.new_user())["refresh_token"]}
    answers = await asyncio.gather(*((auth, replica)[n % 2].post("refresh", body) for n in range(50)))

    assert {answer.status_code for answer in answers} == {200}
    successors = {answer.json()["refresh_token"] for answer in answers}
    assert len(successors) == 1
    assert auth.count("auth_refreshes", result="rotated") + replica.count("auth_refreshes", result="rotated") == 1
    assert (await replica.post("refresh", {"refresh_token": successors.pop()})).status_code == 200


async def test_a_used_token_ends_its_family_once_its_successor_was_used(auth: RunningAuth) -> None:
    first = await auth.new_user()
    second = (await auth.post("refresh", {"refresh_token": first["refresh_token"]})).json()
    third = (await auth.post("refresh", {"refresh_token": second["refresh_token"]})).json()

    reused = await auth.post("refresh", {"refresh_token": first["refresh_token"]})
    assert (reused.status_code, reused.json()["code"]) == (401, "session_revoked")

    assert (await auth.post("refresh", {"refresh_token": third["refresh_token"]})).status_code == 401
    assert (await auth.me(third["access_token"])).json()["code"] == "session_revoked"
    assert (await auth.login(first["user"]["username"]))["access_token"]


async def test_a_used_token_ends_its_family_after_ten_seconds(
    auth: RunningAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, used_ms = await auth.new_user(), now_ms()
    monkeypatch.setattr(sessions_module, "now_ms", lambda: used_ms)
    second = (await auth.post("refresh", {"refresh_token": first["refresh_token"]})).json()

    monkeypatch.setattr(sessions_module, "now_ms", lambda: used_ms + 9_000)
    again = await auth.post("refresh", {"refresh_token": first["refresh_token"]})
    assert again.json()["refresh_token"] == second["refresh_token"]

    monkeypatch.setattr(sessions_module, "now_ms", lambda: used_ms + 10_500)
    assert (await auth.post("refresh", {"refresh_token": first["refresh_token"]})).status_code == 401
    assert (await auth.post("refresh", {"refresh_token": second["refresh_token"]})).status_code == 401


async def test_a_session_ends_however_often_it_was_refreshed(
    auth: RunningAuth, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await auth.new_user()
    life_ms = auth.settings.session_ttl_s * 1000
    monkeypatch.setattr(sessions_module, "now_ms", lambda: now_ms() + life_ms)

    answer = await auth.post("refresh", {"refresh_token": session["refresh_token"]})
    assert (answer.status_code, answer.json()["code"]) == (401, "token_expired")


async def test_neither_kind_of_token_passes_for_the_other(auth: RunningAuth) -> None:
    session = await auth.new_user()

    assert (await auth.post("refresh", {"refresh_token": session["access_token"]})).status_code == 401
    assert (await auth.me(session["refresh_token"])).status_code == 401
    ticket = (await auth.post("ticket", token=session["access_token"])).json()["ticket"]
    assert (await auth.me(ticket)).status_code == 401
    assert (await auth.http.get("/api/auth/me", params={"ticket": ticket})).status_code == 401


async def test_what_is_over_is_deleted(
    auth: RunningAuth, settings: AuthSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await auth.new_user()
    await auth.post("refresh", {"refresh_token": session["refresh_token"]})
    database, metrics = Database(settings.database_url), Metrics()
    log = RevocationLog(database, None, metrics)  # type: ignore[arg-type]  # purging publishes nothing
    keeper = sessions_module.Sessions(database, log, metrics, ttl_s=settings.session_ttl_s, limits=SessionLimits())

    async def rows() -> tuple[int, int]:
        async with database.transaction() as tx:
            tables = (Session, RefreshToken)
            counts = [await tx.scalar(select(func.count()).select_from(table)) for table in tables]
        return counts[0] or 0, counts[1] or 0

    assert await rows() == (1, 2)
    monkeypatch.setattr(sessions_module, "now_ms", lambda: now_ms() + 25 * 3600 * 1000)
    await keeper.purge()
    assert await rows() == (1, 1)
    monkeypatch.setattr(sessions_module, "now_ms", lambda: now_ms() + 31 * 24 * 3600 * 1000)
    await keeper.purge()
    assert await rows() == (0, 0)
    await database.close()


async def test_a_shorter_life_of_sessions_brings_no_revoked_one_back(settings: AuthSettings) -> None:
    async with running_auth(settings) as auth:
        session = await auth.new_user()
        await auth.post("logout", {"refresh_token": session["refresh_token"]})
    database, metrics = Database(settings.database_url), Metrics()
    log = RevocationLog(database, None, metrics)  # type: ignore[arg-type]  # purging publishes nothing
    async with database.transaction() as tx:
        await tx.execute(update(Revoked).values(published_ms=1, before_ms=now_ms() - 3_600_000))
    await sessions_module.Sessions(database, log, metrics, ttl_s=60, limits=SessionLimits()).purge()
    await database.close()

    async with running_auth(settings) as auth:
        answer = await auth.post("refresh", {"refresh_token": session["refresh_token"]})
    assert (answer.status_code, answer.json()["code"]) == (401, "session_revoked")


async def test_what_is_signed_while_all_sessions_are_revoked_is_revoked_with_them(
    settings: AuthSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edges go by the time at which a token was made: it is that of the look at its session, not of the signature."""
    database, metrics = Database(settings.database_url), Metrics()
    log = RevocationLog(database, None, metrics)  # type: ignore[arg-type]
    get = Users.get

    async def slowly(users: Users, user_id: str) -> Any:
        async with database.transaction() as tx:
            await log.write(tx, user_id, None, "meanwhile")
        await asyncio.sleep(2.1)  # a busy database
        return await get(users, user_id)

    async with running_auth(settings) as auth:
        session = await auth.new_user()
        monkeypatch.setattr(Users, "get", slowly)
        renewed = (await auth.post("refresh", {"refresh_token": session["refresh_token"]})).json()
        monkeypatch.setattr(Users, "get", get)
    issued_ms = jwt.decode(renewed["access_token"], options={"verify_signature": False})["iat"] * 1000
    async with database.transaction() as tx:
        before_ms = await tx.scalar(select(Revoked.before_ms))
    await database.close()

    assert before_ms is not None
    assert issued_ms <= before_ms


async def test_a_user_has_so_many_sessions_and_the_oldest_ends_for_another(settings: AuthSettings) -> None:
    async with running_auth(settings.model_copy(update={"max_sessions_per_user": 2})) as auth:
        first = await auth.new_user()
        name = first["user"]["username"]
        second, third = await auth.login(name), await auth.login(name)
        answers = [
            await auth.post("refresh", {"refresh_token": each["refresh_token"]}) for each in (first, second, third)
        ]

        assert [answer.status_code for answer in answers] == [401, 200, 200]
        assert answers[0].json()["code"] == "session_revoked"
        assert (await auth.me(first["access_token"])).status_code == 401


async def test_a_session_that_is_refreshed_too_often_waits_and_loses_nothing(
    settings: AuthSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "REFRESH_BURST", 3)
    async with running_auth(settings.model_copy(update={"refresh_rate_hz": 2.0})) as auth:
        token = (await auth.new_user())["refresh_token"]
        for _ in range(3):
            token = (await auth.post("refresh", {"refresh_token": token})).json()["refresh_token"]
        refused = await auth.post("refresh", {"refresh_token": token})
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert 0 < refused.json()["retryAfterMs"] <= 501

        async def may_go_on() -> bool:
            return (await auth.post("refresh", {"refresh_token": token})).status_code == 200

        await eventually(may_go_on)


async def test_an_address_that_calls_too_often_is_refused_before_anything_is_looked_at(settings: AuthSettings) -> None:
    async with running_auth(settings.model_copy(update={"call_rate_hz": 0.1, "call_burst": 5})) as auth:
        answers = [await auth.post("refresh", {"refresh_token": "garbage"}) for _ in range(7)]

        assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 2
        assert (await auth.http.get("/healthz")).status_code == 200


async def test_who_could_not_be_looked_at_has_not_tried(
    settings: AuthSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storm of logins of others must not lock out who knows their password."""
    authenticate = Users.authenticate

    async def busy(*_: Any) -> Any:
        raise RateLimited("too many people are logging in", retry_after_ms=1)

    async with running_auth(settings) as auth:
        name = (await auth.new_user())["user"]["username"]
        monkeypatch.setattr(Users, "authenticate", busy)
        for _ in range(settings.login_free_per_account + 3):
            answer = await auth.post("login", {"username": name, "password": PASSWORD})
            assert (answer.status_code, answer.json()["retryAfterMs"]) == (429, 1)
        monkeypatch.setattr(Users, "authenticate", authenticate)

        assert await auth.login(name)
