"""Pairs of models: what is stored, returned and refused."""

from collections.abc import AsyncIterator

import httpx
import pytest

from invokeclone.models.records import relationships, store
from invokeclone.models.records.relationships_api import router
from tests.applications import serving


@pytest.fixture
async def pairs(resources) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(resources, router) as client:
        client.base_url = httpx.URL("http://test/api/v1/model_relationships")
        yield client


@pytest.fixture
async def keys(install, make) -> list[str]:
    jobs = [await install(make.vae(f"{name}.safetensors")) for name in "abc"]
    return [job.config_out.key for job in jobs]


async def send(client, method, first, second, status):
    answer = await client.request(method, "/", json={"model_key_1": first, "model_key_2": second})
    assert answer.status_code == status, answer.text
    return answer


async def test_a_pair_is_symmetric_and_stored_once(pairs, keys):
    a, b, c = keys
    await send(pairs, "POST", a, b, 204)
    await send(pairs, "POST", b, a, 204)
    await send(pairs, "POST", a, c, 204)
    assert (await pairs.get(f"/i/{b}")).json() == [a]
    assert (await pairs.get(f"/i/{a}")).json() == sorted([b, c])
    await send(pairs, "DELETE", b, a, 204)
    await send(pairs, "DELETE", b, a, 204)
    assert (await pairs.get(f"/i/{b}")).json() == []


async def test_batch_is_the_union_without_repetition(pairs, keys):
    a, b, c = keys
    await send(pairs, "POST", a, b, 204)
    await send(pairs, "POST", c, b, 204)
    many = [f"unknown-{number}" for number in range(1000)]
    assert (await pairs.post("/batch", json={"model_keys": [a, c, *many, a]})).json() == [b]
    assert (await pairs.post("/batch", json={"model_keys": []})).json() == []
    assert (await pairs.post("/batch", json={"model_keys": "a"})).status_code == 422


async def test_a_model_is_not_its_own_relative(pairs, keys):
    for method in ("POST", "DELETE"):
        answer = await send(pairs, method, keys[0], keys[0], 400)
        assert "itself" in answer.json()["detail"]


async def test_an_unknown_model_cannot_be_related(pairs, keys):
    """The reference answers 500."""
    answer = await send(pairs, "POST", keys[0], "nope", 404)
    assert "nope" in answer.json()["detail"]
    assert (await pairs.get("/i/nope")).json() == []


async def test_a_deleted_model_has_no_relatives(pairs, keys, resources):
    await send(pairs, "POST", keys[0], keys[1], 204)
    async with resources.database.write() as connection:
        await store.delete(connection, keys[0])
    assert (await pairs.get(f"/i/{keys[1]}")).json() == []


async def test_relationships_can_be_transferred(keys, resources):
    a, b, c = keys
    async with resources.database.write() as connection:
        await relationships.add(connection, (min(a, b), max(a, b)))
        await relationships.transfer(connection, a, c)
        assert await relationships.list_related(connection, [b]) == [c]
        assert await relationships.list_related(connection, [a]) == []


@pytest.mark.sqlite("reads SQLite's plan of a query")
async def test_lookups_use_the_index(resources):
    async with resources.database.read() as connection:
        for column in ("model_key_1", "model_key_2"):
            plan = await connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN SELECT * FROM model_relationships WHERE {column} IN ('x', 'y')"
            )
            assert all("SEARCH" in row[3] for row in plan)
