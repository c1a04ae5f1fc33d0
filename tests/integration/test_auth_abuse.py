"""What hostile callers send: guesses, forged pages, bodies that break things. The answer is a refusal, never a 5xx."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.auth.settings import AuthSettings
from tests.support.auth_service import PASSWORD, RunningAuth, running_auth

pytest_plugins = ["tests.support.auth_fixtures"]

EVIL = "https://evil.example"
LONE_SURROGATE = b'{"username":"a\\ud800","password":"correct horse"}'
BODIES: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "array": b"[]",
    "text": b'"x"',
    "cut off": b'{"username":"a"',
    "not utf-8": b'{"username":"\xff\xfe","password":"x"}',
    "deep array": b"[" * 30_000,
    "deep object": b'{"a":' * 10_000,
    "1e400": b'{"username":1e400,"password":NaN}',
    "huge integer": b'{"username":1' + b"0" * 5_000 + b"}",
    "lone surrogate": LONE_SURROGATE,
    "lone surrogate as a password": b'{"username":"ann","password":"\\udfff-long-enough"}',
    "lone surrogate as a key": b'{"\\ud800":1}',
    "NUL": b'{"username":"a\\u0000b","password":"correct horse"}',
    "NUL as a password": b'{"username":"","password":"\\u0000\\u0000"}',
    "numbers": b'{"username":1,"password":2}',
    "lists": b'{"username":["a"],"password":{"$ne":null}}',
    "long name": json.dumps({"username": "x" * 5_000, "password": PASSWORD}).encode(),
    "long password": json.dumps({"username": "ann", "password": "x" * 50_000}).encode(),
    "wrong refresh token": b'{"refresh_token":"\\u0000","grant_type":"client_credentials","client_id":"\\u0000"}',
    "refresh token is a list": b'{"refresh_token":[1],"grant_type":"password"}',
}


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """PostgreSQL, the stricter of the two about what text may hold."""
    url: str = request.getfixturevalue("postgres").new_database()
    return url


def is_problem(answer: httpx.Response) -> bool:
    problem = answer.json()
    return (
        answer.headers["content-type"] == "application/problem+json"
        and problem["status"] == answer.status_code
        and isinstance(problem["code"], str)
    )


async def test_no_body_makes_an_error_of_ours(auth: RunningAuth) -> None:
    for call in ("register", "login", "refresh", "token"):
        for name, body in BODIES.items():
            answer = await auth.http.post(
                f"/api/auth/{call}", content=body, headers={"content-type": "application/json"}
            )
            assert 400 <= answer.status_code < 500, (call, name, answer.text)
            assert is_problem(answer), (call, name, answer.text)


async def test_a_body_over_the_limit_is_refused(auth: RunningAuth) -> None:
    answer = await auth.post("login", {"username": "ann", "password": "x" * 100_000})

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/json; charset=utf-16"])
async def test_json_in_disguise_is_refused_or_read_as_what_it_is(auth: RunningAuth, kind: str) -> None:
    body = json.dumps({"username": "ann", "password": PASSWORD})
    answer = await auth.http.post("/api/auth/login", content=body, headers={"content-type": kind})

    assert answer.status_code in {400, 401, 415}, answer.text


async def test_the_password_is_in_no_answer(auth: RunningAuth) -> None:
    for call in ("register", "login"):
        answer = await auth.post(call, {"username": {"x": 1}, "password": 5, "displayName": "secret-8471"})
        assert answer.status_code == 400
        assert "secret-8471" not in answer.text


@pytest.mark.parametrize("token", ["x", "a.b.c", "\u00e9", "A" * 30_000])
async def test_what_is_no_token_is_refused(auth: RunningAuth, token: str) -> None:
    answer = await auth.http.get("/api/auth/me", headers={"authorization": f"Bearer {token}".encode("latin-1")})

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert is_problem(answer)


@pytest.mark.parametrize(
    "path",
    ["//api/auth/me", "/api/auth/..;/me", "/api/auth/%2e%2e/me", "/api/auth/me%00", "/api/auth/users/%2e%2e/revoke"],
)
async def test_paths_that_walk_lead_nowhere(auth: RunningAuth, path: str) -> None:
    session = await auth.new_user()
    headers = {"authorization": f"Bearer {session['access_token']}"}
    for method in ("GET", "POST"):
        answer = await auth.http.request(method, httpx.URL(auth.url + path), headers=headers)
        assert answer.status_code in {400, 403, 404, 405}, (method, answer.text)


@pytest.mark.parametrize("origin", [EVIL, "null", "https://127.0.0.1.evil.example"])
async def test_a_foreign_page_can_do_nothing_with_the_cookies(auth: RunningAuth, origin: str) -> None:
    session = await auth.new_user()
    cookies = {"cookie": f"auth_token={session['access_token']}; auth_refresh={session['refresh_token']}"}
    for call in ("refresh", "logout", "ticket", "login", "register"):
        body = {"username": session["user"]["username"], "password": PASSWORD}
        answer = await auth.post(call, body, headers=cookies | {"origin": origin})
        assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused"), call
    for site in ("cross-site", "same-site"):
        answer = await auth.post("ticket", headers=cookies | {"sec-fetch-site": site})
        assert answer.status_code == 403

    own = await auth.post("ticket", headers=cookies | {"origin": auth.url, "sec-fetch-site": "same-origin"})
    assert own.status_code == 200


async def test_a_listed_page_may_use_the_cookies(settings: AuthSettings) -> None:
    listed = settings.model_copy(update={"allowed_origins": ["https://app.example.com"]})
    async with running_auth(listed) as auth:
        session = await auth.new_user()
        headers = {"cookie": f"auth_token={session['access_token']}", "origin": "https://app.example.com"}
        assert (await auth.post("ticket", headers=headers)).status_code == 200


async def test_unknown_and_known_names_get_the_same_answer_for_the_same_work(auth: RunningAuth) -> None:
    known = (await auth.new_user())["user"]["username"]
    before = auth.count("argon2_computed", purpose="verify")
    answers = []
    for name in (known, "nobody-of-this-name", "not a name \u202e"):
        answers.append(await auth.post("login", {"username": name, "password": "a wrong password"}))
        assert auth.count("argon2_computed", purpose="verify") == before + len(answers)

    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert len({tuple(sorted(set(answer.headers) - {"date"})) for answer in answers}) == 1


async def test_guessing_one_account_costs_time_on_every_replica(auth: RunningAuth, replica: RunningAuth) -> None:
    name = (await auth.new_user())["user"]["username"]
    other = (await auth.new_user())["user"]["username"]
    wrong = {"username": name, "password": "a wrong password"}
    for _ in range(auth.settings.login_free_per_account):
        assert (await auth.post("login", wrong)).status_code == 401

    refused = await replica.post("login", wrong | {"password": PASSWORD})
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert 0 < refused.json()["retryAfterMs"] <= 500
    assert refused.headers["retry-after"] == "1"
    await auth.login(other)

    async with asyncio.timeout(5):
        while (await replica.post("login", wrong | {"password": PASSWORD})).status_code == 429:
            await asyncio.sleep(0.05)
    for _ in range(auth.settings.login_free_per_account):
        assert (await auth.post("login", wrong)).status_code == 401


async def test_guesses_sent_at_once_are_counted_too(auth: RunningAuth) -> None:
    wrong = {"username": (await auth.new_user())["user"]["username"], "password": "a wrong password"}
    answers = await asyncio.gather(*(auth.post("login", wrong) for _ in range(30)))

    tried = [answer.status_code for answer in answers].count(401)
    assert tried <= auth.settings.login_free_per_account + 1


async def test_a_made_up_forwarded_address_changes_nothing(settings: AuthSettings) -> None:
    strict = settings.model_copy(update={"login_free_per_address": 3})
    async with running_auth(strict) as auth:
        for number in range(3):
            body = {"username": f"nobody{number}", "password": "a wrong password"}
            await auth.post("login", body, headers={"x-forwarded-for": f"10.0.0.{number}"})
        answer = await auth.post(
            "login", {"username": "nobody", "password": "x"}, headers={"x-forwarded-for": "10.9.9.9"}
        )

    assert answer.status_code == 429


async def test_a_trusted_proxys_word_on_the_address_counts(settings: AuthSettings) -> None:
    behind = settings.model_copy(update={"login_free_per_address": 1, "trusted_proxies": ["127.0.0.1"]})
    async with running_auth(behind) as auth:
        body = {"username": "nobody", "password": "a wrong password"}
        statuses = [
            (await auth.post("login", body, headers={"x-forwarded-for": address})).status_code
            for address in ("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.9.9.9, 10.0.0.2", "2001:db8::1", "2001:db8::2")
        ]

    assert statuses == [401, 401, 429, 429, 401, 429]


async def test_many_accounts_from_one_address_cost_time(settings: AuthSettings) -> None:
    strict = settings.model_copy(update={"register_free_per_address": 2})
    async with running_auth(strict) as auth:
        answers = [await auth.post("register", {"username": f"a{n}", "password": PASSWORD}) for n in range(4)]

    assert [answer.status_code for answer in answers] == [201, 201, 429, 429]


async def test_limits_can_be_off_for_benchmarks(settings: AuthSettings) -> None:
    unlimited = settings.model_copy(update={"limits": "off", "login_free_per_account": 1, "argon2_waiting": 0})
    async with running_auth(unlimited) as auth:
        name = (await auth.new_user())["user"]["username"]
        wrong: dict[str, Any] = {"username": name, "password": "a wrong password"}
        answers = await asyncio.gather(*(auth.post("login", wrong) for _ in range(10)))

    assert {answer.status_code for answer in answers} == {401}
