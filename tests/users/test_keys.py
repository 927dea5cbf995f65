"""API keys: what is kept of them, what ends them, where they are looked for, and what they may not do."""

import base64
import hashlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import Depends, WebSocket
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database, open_database
from invokeclone.kit.sql.sqlite_database import SqliteDatabase
from invokeclone.server.app import create_app
from invokeclone.server.http import errors
from invokeclone.server.http.token_renewal import TokenRenewal
from invokeclone.tables import api_keys, users
from invokeclone.users import key_store, keys, service, store
from invokeclone.users.caller import Caller
from invokeclone.users.current import Admin, CurrentUser, identify
from invokeclone.users.key_store import KeyNotFound
from invokeclone.users.keys import BadName
from invokeclone.users.schemas import AdminUserUpdateRequest
from invokeclone.users.store import SYSTEM_ID, UserNotFound
from tests.accounts import Account, account
from tests.users.conftest import SignedInClients, Visit

WRONG = "ick_" + "A" * 43


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def read_keys(database: Database) -> list[Any]:
    async with database.read() as connection:
        return list(await connection.execute(select(api_keys)))


# What is kept


async def test_only_hash_and_prefix_of_a_key_are_stored(database: Database) -> None:
    key = await keys.make(database, SYSTEM_ID, " Open WebUI ")
    another = await keys.make(database, SYSTEM_ID, "another")
    assert keys.is_key(key)
    assert key != another
    (row, _) = sorted(await read_keys(database), key=lambda record: record.name != "Open WebUI")
    assert (row.name, row.prefix) == ("Open WebUI", key[:10])
    assert row.key_hash == hashlib.sha256(key.encode()).hexdigest()
    assert key not in str(row)
    if not isinstance(database, SqliteDatabase):
        return
    assert database.path is not None
    files = [file.read_bytes() for file in database.path.parent.iterdir() if file.is_file()]
    assert any(row.key_hash.encode() in data for data in files)
    assert not any(key[10:].encode() in data for data in files)


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "x" * 101])
async def test_a_key_has_a_name(database: Database, name: str) -> None:
    with pytest.raises(BadName):
        await keys.make(database, SYSTEM_ID, name)
    assert await read_keys(database) == []


async def test_key_needs_an_existing_user(database: Database) -> None:
    with pytest.raises(UserNotFound):
        await keys.make(database, "nobody", "x")
    assert not await keys.has_keys(database)


async def test_keys_are_listed_by_account_and_revoked(database: Database) -> None:
    alice, bob = await account(database, "alice"), await account(database, "bob", is_admin=True)
    first, second = await keys.make(database, alice.user_id, "one"), await keys.make(database, bob.user_id, "two")
    (of_alice,) = await keys.list_all(database, alice.user_id)
    assert (of_alice.name, of_alice.email, of_alice.prefix) == ("one", "alice@example.com", first[:10])
    assert [key.name for key in await keys.list_all(database)] == ["one", "two"]
    await keys.revoke(database, of_alice.id)
    assert await keys.verify(database, first) is None
    holder = await keys.verify(database, second)
    assert holder is not None
    assert (holder.user_id, holder.email, holder.is_admin) == (bob.user_id, "bob@example.com", True)
    with pytest.raises(KeyNotFound):
        await keys.revoke(database, of_alice.id)
    assert await keys.has_keys(database)


async def test_key_has_the_current_rights_of_its_account(multiuser: Resources) -> None:
    database = multiuser.database
    alice = await account(database, "alice")
    key = await keys.make(database, alice.user_id, "x")

    async def change(**values: Any) -> keys.KeyHolder | None:
        async with database.write() as connection:
            await store.change(connection, alice.user_id, **values)
        return await keys.verify(database, key)

    promoted = await change(is_admin=True, display_name="Al")
    assert promoted is not None
    assert (promoted.is_admin, promoted.display_name) == (True, "Al")
    await account(database, "root", is_admin=True)
    await service.change(multiuser, alice.user_id, AdminUserUpdateRequest(is_active=False))
    assert await keys.verify(database, key) is None
    await service.change(multiuser, alice.user_id, AdminUserUpdateRequest(is_active=True))
    assert await keys.verify(database, key) is not None
    await service.remove(multiuser, alice.user_id)
    assert await keys.verify(database, key) is None
    assert await read_keys(database) == []


@pytest.mark.parametrize("shown", ["", "x", WRONG, WRONG + "A", WRONG + "\n", "ick_" + "ä" * 43, "ICK_" + "A" * 43])
async def test_invalid_keys_are_rejected(database: Database, shown: str) -> None:
    await keys.make(database, SYSTEM_ID, "x")
    assert await keys.verify(database, shown) is None


@pytest.mark.sqlite("reads SQLite's plan of a query")
async def test_key_lookup_uses_an_index(database: Database) -> None:
    sql, values = key_store._OWNER._compiled
    async with database.read() as connection:
        plan = [row[3] for row in await connection.execute(text(f"EXPLAIN QUERY PLAN {sql}"), values)]
    assert len(plan) == 2
    assert all(step.startswith("SEARCH") for step in plan), plan
    assert "key_hash=?" in plan[0]


async def last_used(database: Database) -> str | None:
    return str(last_used_at) if (last_used_at := (await read_keys(database))[0].last_used_at) else None


async def test_a_key_s_use_is_written_at_most_once_a_minute(database: Database) -> None:
    key = await keys.make(database, SYSTEM_ID, "x")
    assert await last_used(database) is None
    await keys.verify(database, WRONG)
    assert await last_used(database) is None
    await keys.verify(database, key)
    first = await last_used(database)
    assert first is not None
    await keys.verify(database, key)
    assert await last_used(database) == first
    for old in ("2020-01-01 00:00:00.000", "2999-01-01 00:00:00.000"):
        async with database.write() as connection:
            await connection.execute(update(api_keys).values(last_used_at=old))
        await keys.verify(database, key)
        again = await last_used(database)
        assert again is not None
        assert first <= again < "2999"


async def test_key_is_valid_when_its_use_cannot_be_recorded(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full(*_: object) -> None:
        raise OperationalError("UPDATE", {}, Exception("disk full"))

    monkeypatch.setattr(logging.getLogger("invokeclone"), "propagate", True)
    monkeypatch.setattr(key_store, "note_use", full)
    key = await keys.make(database, SYSTEM_ID, "x")
    assert await keys.verify(database, key) is not None
    assert "cannot record the use of API key" in caplog.text
    assert key[4:] not in caplog.text


# Other dialects


@dataclass
class Door:
    """The routes of a dialect: each says who asks."""

    app: Application
    client: httpx.AsyncClient
    database: Database

    async def who(self, headers: dict[str, str] | None = None, query: str = "") -> str:
        """Return the asking user's id, or the status of a refusal."""
        answer = await self.client.get(f"/who{query}", headers=headers)
        if answer.status_code == 200:
            return str(answer.json())
        assert "API key" in answer.json()["detail"] or answer.status_code != 401
        return str(answer.status_code)

    async def listen(self, headers: dict[str, str] | None = None, query: str = "") -> list[dict[str, Any]]:
        """Return what the server sends to a WebSocket's handshake."""
        sent: list[dict[str, Any]] = []
        scope = {
            "type": "websocket", "path": "/listen", "raw_path": b"/listen", "query_string": query.encode(),
            "root_path": "", "scheme": "ws", "subprotocols": [], "server": ("test", 80), "client": ("1.2.3.4", 1),
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
            "extensions": {"websocket.http.response": {}},
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(dict(message))

        await self.app(scope, receive, send)
        return sent


def compat_app(resources: Resources) -> Application:
    app = Application(dependencies=[Depends(identify)])
    app.services.add(Resources, resources)
    errors.install(app)
    app.add_middleware(TokenRenewal)

    @app.get("/who")
    @app.post("/who")
    async def who(user: Caller) -> str:
        return user.user_id

    @app.get("/broken")
    async def broken(user: Caller) -> str:
        raise RuntimeError(user.user_id)

    @app.websocket("/listen")
    async def listen(socket: WebSocket, user: Caller) -> None:
        await socket.accept()
        await socket.send_text(user.user_id)
        await socket.close()

    return app


async def _open(resources: Resources) -> AsyncIterator[Door]:
    app = compat_app(resources)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield Door(app, client, resources.database)


@pytest.fixture
async def single(resources: Resources) -> AsyncIterator[Door]:
    async for door in _open(resources):
        yield door


@pytest.fixture
async def multi(multiuser: Resources) -> AsyncIterator[Door]:
    async for door in _open(multiuser):
        yield door


@pytest.fixture
async def alice(database: Database) -> Account:
    return await account(database, "alice")


def forms(key: str) -> list[tuple[dict[str, str], str]]:
    """Return every header and query in which clients send a key."""
    return [
        ({"Authorization": f"Bearer {key}"}, ""),
        ({"Authorization": f"bearer  {key} "}, ""),
        (basic("somebody", key), ""),
        (basic("", key), ""),
        (basic(key, ""), ""),
        ({"Authorization": "Basic " + base64.b64encode(key.encode()).decode()}, ""),
        ({"api-key": key}, ""),
        ({"x-goog-api-key": key}, ""),
        ({}, f"?key={key}"),
        ({}, f"?alt=sse&key={key}"),
        ({"Authorization": "Bearer sk-dummy", "api-key": key}, ""),
        (basic("proxy", "secret") | {"x-goog-api-key": key}, ""),
        ({"Authorization": "Bearer ", "x-goog-api-key": key}, ""),
    ]


def nothings() -> list[tuple[dict[str, str], str]]:
    """Return what counts as no credentials, and credentials that aren't good."""
    return [
        ({}, ""),
        ({"Authorization": ""}, ""),
        ({"Authorization": "Bearer"}, ""),
        ({"Authorization": "Bearer "}, ""),
        ({"Authorization": "Basic"}, ""),
        ({"Authorization": "Basic "}, ""),
        ({"Authorization": "Basic !!!"}, ""),
        ({"Authorization": "Basic YQ"}, ""),
        ({"Authorization": "Basic " + base64.b64encode(b"\xff:\xfe").decode()}, ""),
        ({"Authorization": "Basic " + "A" * 5000}, ""),
        (basic("", ""), ""),
        (basic("user", WRONG), ""),
        (basic("user", "password"), ""),
        ({"Authorization": f"Bearer {WRONG}"}, ""),
        ({"Authorization": "Bearer sk-anything"}, ""),
        ({"Authorization": "Digest x"}, ""),
        ({"api-key": ""}, ""),
        ({"api-key": "x"}, ""),
        ({"x-goog-api-key": WRONG}, ""),
        ({}, "?key="),
        ({}, f"?key={WRONG}"),
        ({}, "?api_key=" + WRONG),
    ]


async def test_single_user_mode_without_keys_needs_no_credentials(single: Door) -> None:
    for headers, query in nothings() + forms(WRONG):
        assert await single.who(headers, query) == SYSTEM_ID, (headers, query)


async def test_single_user_mode_requires_a_key_while_one_exists(single: Door, settings: Settings) -> None:
    assert await single.who() == SYSTEM_ID
    elsewhere = open_database(settings)  # as another process would: the command line
    key = await keys.make(elsewhere, SYSTEM_ID, "x")
    for headers, query in nothings():
        assert await single.who(headers, query) == "401", (headers, query)
    for headers, query in forms(key):
        assert await single.who(headers, query) == SYSTEM_ID, (headers, query)
    await keys.revoke(elsewhere, (await keys.list_all(elsewhere))[0].id)
    assert await single.who() == SYSTEM_ID
    await elsewhere.close()


async def test_single_user_mode_accepts_all_users_keys_as_the_system_user(single: Door, alice: Account) -> None:
    key = await keys.make(single.database, alice.user_id, "x")
    assert await single.who() == "401"
    assert await single.who({"api-key": key}) == SYSTEM_ID
    async with single.database.write() as connection:
        await store.change(connection, alice.user_id, is_active=False)
    assert await single.who({"api-key": key}) == "401"
    assert await single.who() == "401", "a disabled account's key goes on closing the door"


async def test_with_accounts_a_key_or_a_token_is_needed(multi: Door, alice: Account) -> None:
    for headers, query in nothings():
        assert await multi.who(headers, query) == "401", (headers, query)
    key = await keys.make(multi.database, alice.user_id, "x")
    for headers, query in nothings():
        assert await multi.who(headers, query) == "401", (headers, query)
    for headers, query in forms(key):
        assert await multi.who(headers, query) == alice.user_id, (headers, query)
    assert await multi.who(alice.headers) == alice.user_id
    for headers, query in ((basic("", alice.token), ""), ({"api-key": alice.token}, ""), ({}, f"?key={alice.token}")):
        assert await multi.who(headers, query) == "401", "a token is a bearer's"


async def test_system_key_is_rejected_in_multi_user_mode(multi: Door) -> None:
    key = await keys.make(multi.database, SYSTEM_ID, "x")
    for headers, query in forms(key):
        assert await multi.who(headers, query) == "401", (headers, query)


async def test_requests_with_a_key_get_no_refreshed_token(multi: Door, alice: Account) -> None:
    key = await keys.make(multi.database, alice.user_id, "x")
    with_token = await multi.client.post("/who", headers=alice.headers)
    assert "x-refreshed-token" in with_token.headers
    with_key = await multi.client.post("/who", headers={"Authorization": f"Bearer {key}"})
    assert with_key.json() == alice.user_id
    assert "x-refreshed-token" not in with_key.headers


async def test_socket_handshake_requires_credentials(multi: Door, alice: Account) -> None:
    key = await keys.make(multi.database, alice.user_id, "x")
    for headers, query in [*forms(key), (alice.headers, "")]:
        messages = await multi.listen(headers, query.removeprefix("?"))
        assert [message["type"] for message in messages] == ["websocket.accept", "websocket.send", "websocket.close"]
        assert messages[1]["text"] == alice.user_id
    for headers, query in nothings():
        refused = await multi.listen(headers, query.removeprefix("?"))
        assert (refused[0]["type"], refused[0]["status"]) == ("websocket.http.response.start", 401)


async def test_single_user_socket_requires_a_key_once_one_exists(single: Door) -> None:
    assert (await single.listen())[1]["text"] == SYSTEM_ID
    key = await keys.make(single.database, SYSTEM_ID, "x")
    assert (await single.listen())[0]["status"] == 401
    assert (await single.listen({}, f"key={key}"))[1]["text"] == SYSTEM_ID


async def test_no_key_is_logged(
    multi: Door, alice: Account, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("invokeclone"), "propagate", True)
    for name in ("invokeclone", "sqlalchemy.engine"):
        caplog.set_level(logging.DEBUG, name)
    key = await keys.make(multi.database, alice.user_id, "x")
    for headers, query in [*forms(key), *forms(WRONG)]:
        await multi.who(headers, query)
        await multi.client.get(f"/broken{query}", headers=headers)
    log_lines = [
        record.getMessage() for record in caplog.records if record.name.startswith(("invokeclone", "sqlalchemy"))
    ]
    assert any("/broken" in line for line in log_lines)
    assert not [line for line in log_lines if key[10:] in line or WRONG in line]


# The API of the accounts


async def test_key_reads_its_account_and_cannot_manage_accounts(
    people: SignedInClients, visit: Visit, multiuser: Resources
) -> None:
    await people.admin()
    key = await keys.make(multiuser.database, people.ids["admin"], "x")
    client = visit(key)
    profile = (await client.get("me")).json()
    assert profile["user_id"] == people.ids["admin"]
    for method, path, sent in (
        ("PATCH", "me", {"display_name": "X"}),
        ("POST", "logout", None),
        ("GET", "generate-password", None),
        ("GET", "users", None),
        ("POST", "users", {"email": "new@example.com", "password": "x"}),
        ("GET", f"users/{profile['user_id']}", None),
        ("PATCH", f"users/{profile['user_id']}", {"password": "x"}),
        ("DELETE", f"users/{profile['user_id']}", None),
    ):
        answer = await client.request(method, path, json=sent)
        assert (answer.status_code, answer.json()["detail"]) == (
            403,
            "An API key cannot do this: sign in with a password",
        ), path
    cookie = await client.post("media-cookie")
    assert cookie.status_code == 200
    assert "set-cookie" not in cookie.headers
    assert (await client.get("me")).json() == profile
    assert (await visit(WRONG).get("me")).status_code == 401
    async with multiuser.database.read() as connection:
        assert len(list(await connection.execute(select(users)))) == 2


async def test_key_acts_as_its_user_across_the_api(settings: Settings, laid_out: None) -> None:
    app = create_app(settings.model_copy(update={"multiuser": True}), worker_command=None)
    database: Database = app.services.get(Resources).database
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test/api/v1") as client,
    ):
        bob, admin = await account(database, "bob"), await account(database, "root", is_admin=True)
        of_bob = {"Authorization": f"Bearer {await keys.make(database, bob.user_id, 'x')}"}
        of_admin = {"Authorization": f"Bearer {await keys.make(database, admin.user_id, 'x')}"}
        of_system = {"Authorization": f"Bearer {await keys.make(database, SYSTEM_ID, 'x')}"}
        answer = await client.post("/boards/?board_name=b", headers=of_bob)
        assert (answer.status_code, answer.json()["user_id"]) == (201, bob.user_id)
        assert "x-refreshed-token" not in answer.headers
        assert (await client.get("/app/logging", headers=of_bob)).status_code == 403
        assert (await client.get("/app/logging", headers=of_admin)).status_code == 200
        assert (await client.get("/boards/?all=true", headers=of_system)).status_code == 401
        assert (
            await client.get("/boards/?all=true", headers={"api-key": of_bob["Authorization"][7:]})
        ).status_code == 401
        for key in await keys.list_all(database, bob.user_id):
            await keys.revoke(database, key.id)
        assert (await client.get("/boards/?all=true", headers=of_bob)).status_code == 401


async def test_rights_follow_the_account_of_the_key(multiuser: Resources, alice: Account) -> None:
    app = Application()
    app.services.add(Resources, multiuser)
    errors.install(app)

    @app.get("/user")
    async def user(user: CurrentUser) -> str:
        return user.user_id

    @app.get("/admin")
    async def admin(user: Admin) -> str:
        return user.user_id

    key = await keys.make(multiuser.database, alice.user_id, "x")
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as client:
        assert (await client.get("/user")).json() == alice.user_id
        assert (await client.get("/admin")).status_code == 403
        async with multiuser.database.write() as connection:
            await store.change(connection, alice.user_id, is_admin=True)
        assert (await client.get("/admin")).json() == alice.user_id
