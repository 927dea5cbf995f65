"""Client state over HTTP: what the web UI boots with and writes back all the time."""

import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import delete, insert
from sqlalchemy.exc import IntegrityError

from invokeclone.kit.resources import Resources
from invokeclone.tables import users
from invokeclone.users import client_state
from invokeclone.users.client_state_api import router
from tests.applications import serving

BASE = "/api/v1/client_state/default"


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(resources, router) as lent:
        yield lent


async def set_text(client: httpx.AsyncClient, key: str, text: str) -> None:
    answer = await client.post(f"{BASE}/set_by_key", params={"key": key}, json=text)
    assert (answer.status_code, answer.json()) == (200, text)


async def got(client: httpx.AsyncClient, key: str) -> str | None:
    answer = await client.get(f"{BASE}/get_by_key", params={"key": key})
    assert answer.status_code == 200
    return answer.json()


async def test_a_key_that_was_never_set_is_null(client: httpx.AsyncClient) -> None:
    assert await got(client, "params") is None


async def test_plain_text_is_returned_as_a_json_string(client: httpx.AsyncClient) -> None:
    """The web UI sends a slice's JSON as text/plain and reads it back JSON in JSON."""
    slice_text = json.dumps({"seed": 1, "prompt": 'a "cat" — ✓'}, ensure_ascii=False)
    answer = await client.post(
        f"{BASE}/set_by_key",
        params={"key": "params"},
        content=slice_text.encode(),
        headers={"content-type": "text/plain;charset=UTF-8"},
    )
    assert (answer.status_code, answer.json()) == (200, slice_text)
    assert await got(client, "params") == slice_text


async def test_json_string_body_is_stored_as_its_text(client: httpx.AsyncClient) -> None:
    await set_text(client, "k", 'with "quotes"')
    await set_text(client, "k", "second")
    assert await got(client, "k") == "second"


@pytest.mark.parametrize("text", ["", " ", "null", "a\nb", "😀"])
async def test_any_text_is_returned_unchanged(client: httpx.AsyncClient, text: str) -> None:
    await set_text(client, "k", text)
    assert await got(client, "k") == text


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"a": 1}', "application/json"),
        (b"12", "application/json"),
        (b"{", "application/json"),
        (b'"\\ud800"', "application/json"),
        (b"\xff\xfe", "text/plain"),
        (b'"\\u0000"', "application/json"),
        (b"", "application/json"),
    ],
)
async def test_non_text_body_is_refused(client: httpx.AsyncClient, content: bytes, kind: str) -> None:
    answer = await client.post(
        f"{BASE}/set_by_key", params={"key": "k"}, content=content, headers={"content-type": kind}
    )
    assert answer.status_code == 422
    assert await got(client, "k") is None


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("GET", "get_by_key"),
        ("GET", "get_keys_by_prefix"),
        ("POST", "set_by_key"),
        ("POST", "delete_by_key"),
    ],
)
async def test_a_missing_key_is_refused(client: httpx.AsyncClient, method: str, name: str) -> None:
    assert (await client.request(method, f"{BASE}/{name}", json="x")).status_code == 422


async def test_megabytes_are_stored_quickly(client: httpx.AsyncClient) -> None:
    text = "x" * 5_000_000
    before = time.process_time()
    await set_text(client, "canvas", text)
    assert await got(client, "canvas") == text
    assert time.process_time() - before < 2, "measured: 0.1 s"


async def test_keys_by_prefix_are_sorted_and_match_literally(client: httpx.AsyncClient) -> None:
    for key in ("recall_b", "recall_a", "Recall_c", "recallxd", "other", "%"):
        await set_text(client, key, "1")

    async def keys(prefix: str) -> list[str]:
        return (await client.get(f"{BASE}/get_keys_by_prefix", params={"prefix": prefix})).json()

    assert await keys("recall_") == ["recall_a", "recall_b"]
    assert await keys("%") == ["%"]
    assert len(await keys("")) == 6
    assert await keys("none") == []


async def test_one_key_or_all_keys_can_be_deleted(client: httpx.AsyncClient) -> None:
    await set_text(client, "a", "1")
    await set_text(client, "b", "2")
    for _again in range(2):
        answer = await client.post(f"{BASE}/delete_by_key", params={"key": "a"})
        assert (answer.status_code, answer.json()) == (200, None)
    assert (await got(client, "a"), await got(client, "b")) == (None, "2")
    answer = await client.post(f"{BASE}/delete")
    assert (answer.status_code, answer.json()) == (200, None)
    assert await got(client, "b") is None


async def test_queue_id_in_the_path_is_ignored(client: httpx.AsyncClient) -> None:
    await set_text(client, "k", "v")
    answer = await client.get("/api/v1/client_state/other/get_by_key", params={"key": "k"})
    assert answer.json() == "v"


async def test_each_user_has_separate_state(resources: Resources) -> None:
    async with resources.database.write() as connection:
        await connection.execute(
            insert(users).values(user_id="alice", email="a@x.y", password_hash="", created_at="", updated_at="")
        )
        await client_state.set_values(connection, "system", {"k": "of system"})
        await client_state.set_values(connection, "alice", {"k": "of alice", "l": "too"})
        await client_state.remove(connection, "system", "l")
        await client_state.clear(connection, "system")
    async with resources.database.read() as connection:
        assert await client_state.get(connection, "system", "k") is None
        assert await client_state.get(connection, "alice", "k") == "of alice"
        assert await client_state.keys(connection, "alice", "") == ["k", "l"]
        assert await client_state.keys(connection, "system", "") == []


async def test_deleting_an_account_deletes_its_state(resources: Resources) -> None:
    async with resources.database.write() as connection:
        await connection.execute(
            insert(users).values(user_id="bob", email="b@x.y", password_hash="", created_at="", updated_at="")
        )
        await client_state.set_values(connection, "bob", {"k": "v"})
        await connection.execute(delete(users).where(users.c.user_id == "bob"))
        assert await client_state.keys(connection, "bob", "") == []


async def test_state_of_an_unknown_user_is_refused(resources: Resources) -> None:
    with pytest.raises(IntegrityError):
        async with resources.database.write() as connection:
            await client_state.set_values(connection, "nobody", {"k": "v"})
