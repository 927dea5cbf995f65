"""Signing in and out: tokens, what ends them, the token that follows, the cookie, and who tries too often."""

import asyncio
import logging
import time
from typing import Any

import httpx
import jwt
import pytest
from sqlalchemy import select, update

from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.tables import app_state, users
from invokeclone.users import attempts, passwords
from invokeclone.users.api import router
from invokeclone.users.attempts import Attempts, TooManyAttempts
from invokeclone.users.current import MediaUser
from tests.applications import serving
from tests.users.conftest import PASSWORD, SignedInClients, Visit

ALICE = {"email": "alice@example.com", "password": PASSWORD}


async def secret(resources: Resources) -> str:
    async with resources.database.read() as connection:
        query = select(app_state.c.value).where(app_state.c.key == "jwt_secret")
        return str((await connection.execute(query)).scalar_one())


def token_of(client: httpx.AsyncClient) -> str:
    return client.headers["authorization"].removeprefix("Bearer ")


@pytest.mark.parametrize(("remember", "seconds"), [(False, 86_400), (True, 604_800)])
async def test_login_gives_a_token_and_the_cookie(
    people: SignedInClients, visit: Visit, multiuser: Resources, remember: bool, seconds: int
) -> None:
    await people.user(await people.admin(), "alice", display_name="Alice")
    answer = await visit().post("login", json=ALICE | {"remember_me": remember})
    body = answer.json()
    assert set(body) == {"token", "user", "expires_in"}
    assert body["expires_in"] == seconds
    assert (body["user"]["email"], body["user"]["display_name"]) == ("alice@example.com", "Alice")
    assert body["user"]["last_login_at"].endswith("Z")
    assert not body["user"]["created_at"].endswith("Z")
    claims = jwt.decode(body["token"], await secret(multiuser), algorithms=["HS256"])
    assert set(claims) == {"user_id", "email", "is_admin", "remember_me", "token_epoch", "exp"}
    assert claims["remember_me"] is remember
    assert abs(claims["exp"] - time.time() - seconds) < 10
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("invokeai_media_token=")
    assert "HttpOnly" in cookie
    assert "Path=/api/v1;" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    assert abs(int(cookie.split("Max-Age=")[1].split(";")[0]) - seconds) < 10


async def test_the_cookie_is_secure_over_https(people: SignedInClients, visit: Visit) -> None:
    await people.admin()
    answer = await visit(base="https://test").post("login", json=ALICE | {"email": "admin@example.com"})
    assert "Secure" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"password": "wrong"}, 401),
        ({"password": ""}, 401),
        ({"password": "x" * 5000}, 401),
        ({"email": "nobody@example.com"}, 401),
        ({"email": "ALICE@example.com"}, 401),
        ({"email": "system@system.invokeai"}, 401),
        ({"email": "system@system.invokeai", "password": ""}, 401),
        ({"email": "alice"}, 422),
        ({"password": 5}, 422),
    ],
)
async def test_login_refuses_invalid_credentials(
    people: SignedInClients, visit: Visit, change: dict[str, str], status: int
) -> None:
    await people.user(await people.admin(), "alice")
    answer = await visit().post("login", json=ALICE | change)
    assert answer.status_code == status
    assert "set-cookie" not in answer.headers
    if status == 401:
        assert answer.json()["detail"] == "Incorrect email or password"


async def test_disabled_account_is_reported_only_with_the_right_password(people: SignedInClients, visit: Visit) -> None:
    admin = await people.admin()
    alice = await people.user(admin, "alice")
    await admin.patch(f"users/{people.ids['alice']}", json={"is_active": False})
    assert (await visit().post("login", json=ALICE)).status_code == 403
    assert (await visit().post("login", json=ALICE | {"password": "wrong"})).status_code == 401
    assert (await alice.get("me")).status_code == 401
    await admin.patch(f"users/{people.ids['alice']}", json={"is_active": True})
    assert (await alice.get("me")).status_code == 401, "a token that has ended stays ended"
    await people.sign_in("alice")


async def test_unknown_emails_take_as_long_to_check_as_known_ones(
    people: SignedInClients, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await people.admin()
    verified = []

    class Counting:
        def verify(self, password_hash: str, password: str) -> bool:
            verified.append(password_hash)
            return real.verify(password_hash, password)

        def hash(self, password: str) -> str:
            return real.hash(password)

    real = passwords._hasher()
    monkeypatch.setattr(passwords, "_hasher", Counting)
    for email in ("admin@example.com", "nobody@example.com"):
        await visit().post("login", json={"email": email, "password": "wrong"})
    assert len(verified) == 2
    assert all(password_hash.startswith("$argon2id$") for password_hash in verified)


async def test_hash_with_outdated_cost_is_renewed_at_login(
    people: SignedInClients, multiuser: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await people.admin()

    async def read_hash() -> str:
        async with multiuser.database.read() as connection:
            query = select(users.c.password_hash).where(users.c.user_id == people.ids["admin"])
            return str((await connection.execute(query)).scalar_one())

    before = await read_hash()
    await people.sign_in("admin")
    assert await read_hash() == before
    monkeypatch.setattr(passwords, "MEMORY_KIB", 16)
    passwords._hasher.cache_clear()
    await people.sign_in("admin")
    assert "m=16," in await read_hash()
    assert (await admin.get("me")).status_code == 200, "earlier tokens go on"
    await people.sign_in("admin")


async def forge_token(resources: Resources, user_id: str, **changes: object) -> str:
    claims = {
        "user_id": user_id,
        "email": "admin@example.com",
        "is_admin": True,
        "remember_me": False,
        "token_epoch": 0,
        "exp": int(time.time()) + 60,
        **changes,
    }
    return jwt.encode({key: value for key, value in claims.items() if value is not None}, await secret(resources))


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"exp": None},
        {"token_epoch": 1},
        {"token_epoch": None},
        {"token_epoch": "0"},
        {"token_epoch": False},
        {"user_id": "nobody"},
        {"user_id": None},
        {"user_id": ["admin"]},
        {"email": None},
        {"is_admin": None},
        {"remember_me": None},
        {"use": "media"},
    ],
)
async def test_token_must_be_complete_and_valid(
    people: SignedInClients, visit: Visit, multiuser: Resources, changes: dict[str, Any]
) -> None:
    await people.admin()
    good = await forge_token(multiuser, people.ids["admin"])
    assert (await visit(good).get("me")).status_code == 200
    bad = await forge_token(multiuser, **({"user_id": people.ids["admin"]} | changes))
    assert (await visit(bad).get("me")).status_code == 401


async def test_token_must_have_our_signature_and_algorithm(
    people: SignedInClients, visit: Visit, multiuser: Resources
) -> None:
    admin = await people.admin()
    key = await secret(multiuser)
    claims = jwt.decode(token_of(admin), key, algorithms=["HS256"])
    head, body, signature = token_of(admin).split(".")
    bad = [
        jwt.encode(claims, "", "none"),
        jwt.encode(claims, key, "HS512"),
        jwt.encode(claims, "another secret of enough length, say 32", "HS256"),
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{head}.{body}.{signature[::-1]}",
        "nonsense",
        "x" * 100_000,
        "..",
        "\xe9",
    ]
    for token in bad:
        answer = await visit().get("me", headers={b"Authorization": f"Bearer {token}".encode("latin-1")})
        assert answer.status_code == 401, token[:40]
        assert answer.headers["www-authenticate"] == "Bearer"
    for header in ("", "Bearer", "Bearer ", f"Basic {token_of(admin)}", token_of(admin)):
        assert (await visit().get("me", headers={"Authorization": header})).status_code == 401
    assert (await visit().get("me", headers={"Authorization": f"bearer {token_of(admin)}"})).status_code == 200


async def test_signing_secret_is_created_once(people: SignedInClients, multiuser: Resources) -> None:
    await people.admin()
    before = await secret(multiuser)
    await asyncio.gather(*(people.sign_in("admin") for _ in range(4)))
    assert await secret(multiuser) == before
    assert len(before) >= 43


async def test_rights_come_from_the_database_not_from_the_token(people: SignedInClients) -> None:
    admin = await people.admin()
    alice = await people.user(admin, "alice", is_admin=True)
    assert (await alice.get("users")).status_code == 200
    await admin.patch(f"users/{people.ids['alice']}", json={"is_admin": False})
    assert (await alice.get("users")).status_code == 403
    assert (await alice.get("me")).json()["is_admin"] is False
    await admin.patch(f"users/{people.ids['alice']}", json={"is_admin": True})
    assert (await alice.get("users")).status_code == 200


async def test_only_changes_return_a_refreshed_token(people: SignedInClients, visit: Visit) -> None:
    admin = await people.admin()
    changed = await admin.patch("me", json={"display_name": "Chief"})
    fresh = changed.headers["x-refreshed-token"]
    assert (await visit(fresh).get("me")).json()["display_name"] == "Chief"
    assert "x-refreshed-token" not in (await admin.get("me")).headers
    assert "x-refreshed-token" not in (await admin.patch("me", json={"new_password": "x"})).headers
    for path in ("logout", "media-cookie"):
        assert "x-refreshed-token" not in (await admin.post(path)).headers
    assert "x-refreshed-token" not in (await admin.post("login", json=ALICE)).headers
    created = await admin.post("users", json=ALICE)
    assert "x-refreshed-token" in created.headers
    deleted = await admin.delete(f"users/{created.json()['user_id']}")
    assert (deleted.status_code, "x-refreshed-token" in deleted.headers) == (204, True)


async def test_refreshed_token_keeps_remember_me(people: SignedInClients, multiuser: Resources) -> None:
    await people.admin()
    client = await people.sign_in("admin", remember_me=True)
    fresh = (await client.patch("me", json={"display_name": "A"})).headers["x-refreshed-token"]
    claims = jwt.decode(fresh, await secret(multiuser), algorithms=["HS256"])
    assert claims["remember_me"] is True
    assert claims["exp"] > time.time() + 600_000


async def test_logout_deletes_the_cookie_and_needs_a_token(people: SignedInClients, visit: Visit) -> None:
    admin = await people.admin()
    answer = await admin.post("logout")
    assert answer.json() == {"success": True}
    assert 'invokeai_media_token=""' in answer.headers["set-cookie"]
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert "Path=/api/v1;" in answer.headers["set-cookie"]
    assert (await admin.get("me")).status_code == 200, "the token is the client's to forget"
    assert (await visit().post("logout")).status_code == 401


async def test_media_cookie_is_valid_for_media_only(people: SignedInClients, visit: Visit, app: Application) -> None:
    @app.get("/api/v1/auth/picture")
    async def media(user: MediaUser) -> str:
        return user.user_id

    admin = await people.admin()
    answer = await admin.post("media-cookie")
    assert answer.json() == {"success": True}
    cookie = answer.headers["set-cookie"].split("=", 1)[1].split(";")[0]
    browser = visit()
    assert (await browser.get("picture")).status_code == 401
    browser.cookies.set("invokeai_media_token", cookie)
    assert (await browser.get("picture")).json() == people.ids["admin"]
    assert (await browser.get("me")).status_code == 401
    assert (await browser.post("media-cookie")).status_code == 401
    assert (await visit(cookie).get("me")).status_code == 401, "what a browser carries is not a bearer"
    assert (await admin.get("picture")).json() == people.ids["admin"]
    await admin.patch(f"users/{people.ids['admin']}", json={"password": "Another-1"})
    assert (await browser.get("picture")).status_code == 401, "a revoked cookie is worth nothing"


async def test_single_user_mode_uses_tokens_only_for_account_routes(
    resources: Resources, people: SignedInClients, visit: Visit
) -> None:
    admin = await people.admin()
    alice = await people.user(admin, "alice")
    async with serving(resources, router) as client:
        base = "/api/v1/auth"
        for path in ("me", "users", "generate-password"):
            assert (await client.get(f"{base}/{path}")).status_code == 401, path
            assert (await client.get(f"{base}/{path}", headers=admin.headers)).status_code == 200, path
        assert (await client.get(f"{base}/users", headers=alice.headers)).status_code == 403
        assert (await client.post(f"{base}/logout")).status_code == 401
        assert (await client.post(f"{base}/media-cookie")).json() == {"success": True}


async def test_too_many_failed_logins_are_limited_by_email_and_address(people: SignedInClients, visit: Visit) -> None:
    await people.user(await people.admin(), "alice")
    wrong = ALICE | {"password": "wrong"}
    answers = await asyncio.gather(*(visit().post("login", json=wrong) for _ in range(attempts.PAIR_LIMIT + 3)))
    assert sorted(answer.status_code for answer in answers) == [401] * attempts.PAIR_LIMIT + [429] * 3
    refused = await visit().post("login", json=ALICE)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "300")
    assert (await visit(address="5.6.7.8").post("login", json=ALICE)).status_code == 200
    await people.sign_in("admin")


def test_login_attempts_are_counted() -> None:
    at = [0.0]
    count = Attempts(lambda: at[0])
    for _ in range(100):
        count.begin("a", "x")
        count.record_success("a", "x")
    for number in range(attempts.ADDRESS_LIMIT):
        count.begin("a", f"{number}")
    with pytest.raises(TooManyAttempts):
        count.begin("a", "new")
    count.begin("b", "new")
    for number in range(attempts.EMAIL_LIMIT):
        count.begin(f"address{number}", "victim")
    with pytest.raises(TooManyAttempts):
        count.begin("another", "victim")
    at[0] += attempts.WINDOW_S + 1
    count.begin("a", "new")
    count.begin("another", "victim")
    for number in range(attempts.MAX_KEYS):
        count.begin(f"flood{number}", f"flood{number}")
    assert len(count._failures) == attempts.MAX_KEYS


async def test_tokens_and_passwords_are_not_logged(
    people: SignedInClients, visit: Visit, caplog: pytest.LogCaptureFixture, app: Application
) -> None:
    @app.get("/api/v1/auth/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    with caplog.at_level(logging.DEBUG):
        admin = await people.admin()
        assert (await admin.get("broken")).status_code == 500
        await visit().post("login", json=ALICE)
        await visit("not-a-token").get("me")
    assert "broken" in caplog.text
    for word in (token_of(admin), PASSWORD, "not-a-token"):
        assert word not in caplog.text


async def test_password_changed_during_login_is_refused(
    people: SignedInClients, visit: Visit, multiuser: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    await people.admin()
    real = passwords.matches

    async def slow(password: str, password_hash: str | None) -> bool:
        matches = await real(password, password_hash)
        async with multiuser.database.write() as connection:
            await connection.execute(update(users).values(password_hash=await passwords.hash_password("other")))
        return matches

    monkeypatch.setattr(passwords, "matches", slow)
    answer = await visit().post("login", json=ALICE | {"email": "admin@example.com"})
    assert answer.status_code == 401
