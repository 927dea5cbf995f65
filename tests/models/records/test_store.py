"""Rows of records."""

import json

import pytest
from sqlalchemy import text, update

from invokeclone.models.errors import DuplicateModelException, UnknownModelException
from invokeclone.models.identify import registry
from invokeclone.models.records import store
from invokeclone.models.records.schemas import ModelRecordOrderBy, SQLiteDirection
from invokeclone.tables import models


def config(key="a", **fields):
    record = {
        "key": key, "hash": f"blake3:{key}", "path": f"{key}/x", "file_size": 1, "name": key, "source": f"/from/{key}",
        "source_type": "path", "type": "main", "format": "checkpoint", "base": "sd-1", "prediction_type": "epsilon",
        "variant": "normal",
    }  # fmt: skip
    return registry.parse(record | fields)


@pytest.fixture
async def filled(database):
    async with database.write() as connection:
        await store.add(connection, config("a", name="beta", file_size=3))
        await store.add(connection, config("b", name="Alpha", file_size=2, format="diffusers"))
        await store.add(connection, config("c", name="gamma", type="vae"))
    return database


async def keys(database, **query):
    async with database.read() as connection:
        return [record.key for record in await store.search(connection, **query)]


async def test_records_round_trip(database):
    whole = config("a", description="d", default_settings={"steps": 5}, trigger_phrases=["x"])
    async with database.write() as connection:
        await store.add(connection, whole)
        assert await store.get(connection, "a") == whole
        assert await store.exists(connection, "a")
        assert not await store.exists(connection, "b")


async def test_search_by_each_attribute(filled):
    assert await keys(filled) == ["b", "a", "c"]
    assert await keys(filled, name="beta") == ["a"]
    assert await keys(filled, name="BETA") == []
    assert await keys(filled, type="vae") == ["c"]
    assert await keys(filled, format="diffusers") == ["b"]
    assert await keys(filled, bases=["sd-1", "sdxl"], type="main") == ["b", "a"]
    assert await keys(filled, bases=["sdxl"]) == []
    assert await keys(filled, path="c/x") == ["c"]
    assert await keys(filled, hash="blake3:b") == ["b"]


@pytest.mark.parametrize("order", ModelRecordOrderBy)
async def test_every_order_in_both_directions(filled, order):
    up = await keys(filled, order_by=order)
    down = await keys(filled, order_by=order, direction=SQLiteDirection.Descending)
    assert up == down[::-1]
    if order == "size":
        assert up == ["c", "b", "a"]


async def test_find_first(filled):
    async with filled.read() as connection:
        assert (await store.find_first(connection, name="beta")).key == "a"
        with pytest.raises(UnknownModelException, match="no model with name nobody"):
            await store.find_first(connection, name="nobody")


async def test_duplicate_paths_and_keys(filled):
    for taken in (config("a", path="new"), config("d", path="a/x")):
        with pytest.raises(DuplicateModelException):
            async with filled.write() as connection:
                await store.add(connection, taken)
    with pytest.raises(DuplicateModelException):
        async with filled.write() as connection:
            await store.update(connection, config("a", path="b/x"))


async def test_update_and_delete(filled):
    async with filled.write() as connection:
        await store.update(connection, config("a", name="new"))
        assert (await store.get(connection, "a")).name == "new"
        assert await store.delete(connection, "a") == "a/x"
        for work in (store.get, store.delete):
            with pytest.raises(UnknownModelException):
                await work(connection, "a")
        with pytest.raises(UnknownModelException):
            await store.update(connection, config("a"))
        assert await store.paths(connection) == {"b": "b/x", "c": "c/x"}
        assert await store.sources(connection) == {"/from/b", "/from/c"}


@pytest.mark.parametrize("broken", ["{", "[]", json.dumps({"type": "main", "base": "future"})])
async def test_unreadable_rows_are_skipped(filled, broken):
    async with filled.write() as connection:
        await connection.execute(update(models).where(models.c.key == "a").values(config=broken))
    assert await keys(filled) == ["b", "c"]
    async with filled.read() as connection:
        assert "a" in await store.paths(connection)


@pytest.mark.sqlite("reads SQLite's plan of a query")
async def test_finding_by_name_uses_the_index(database):
    query = "EXPLAIN QUERY PLAN SELECT config FROM models WHERE base = 'x' AND type = 'y' AND name = 'z'"
    async with database.read() as connection:
        plan = " ".join(str(row) for row in await connection.execute(text(query)))
    assert "ix_models_name" in plan
