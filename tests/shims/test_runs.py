"""Runs without a worker: what is heard of a batch, how it ends, and who cancels it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from invokeclone.graph.invocations import registry
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.sqlite_database import SqliteDatabase
from invokeclone.queue import claims, service
from invokeclone.queue.batches import Batch
from invokeclone.queue.bulk import ItemFilter
from invokeclone.queue.capacity import QueueFull
from invokeclone.shims import batch_follower
from invokeclone.shims.batch_follower import BatchFollower
from invokeclone.shims.runs import RunCanceled, RunFailed, Runs
from invokeclone.users.current import SYSTEM, User


@pytest.fixture
async def bus() -> Bus:
    return Bus()


@pytest.fixture
async def resources(tmp_path, bus: Bus) -> AsyncIterator[Resources]:
    registry.discover()
    settings = Settings(root=tmp_path, max_queue_size=5)
    database = SqliteDatabase(settings.database_path)
    await database.migrate()
    yield Resources(settings, database, bus)
    await database.close()


@pytest.fixture
async def runs(resources: Resources, bus: Bus) -> AsyncIterator[Runs]:
    follower = BatchFollower(resources, bus)
    yield Runs(resources, follower)
    await follower.stop()


def batch(count: int = 1) -> Batch:
    graph = {"id": "g", "nodes": {"a": {"id": "a", "type": "add"}}, "edges": []}
    return Batch.model_validate({"graph": graph, "runs": count})


async def finish(resources: Resources, status: Any = "completed", **options: Any) -> None:
    item = await claims.claim(resources, "cpu")
    assert item
    await claims.finish(resources, item.item_id, status, **options)


async def test_run_waits_for_all_items(runs: Runs, resources: Resources) -> None:
    async with runs.running(batch(2), SYSTEM) as run:
        waiting = asyncio.ensure_future(run.image_names())
        await finish(resources)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert run.progress == 0.5
        await finish(resources)
        assert await waiting == []
    assert runs.for_user(SYSTEM) == []


async def test_item_finished_before_waiting_is_noticed(runs: Runs, resources: Resources) -> None:
    async with runs.running(batch(), SYSTEM) as run:
        await finish(resources)
        assert await run.image_names() == []


async def test_missed_event_only_delays_completion(runs: Runs, resources: Resources, monkeypatch) -> None:
    monkeypatch.setattr(batch_follower, "REFRESH_INTERVAL_S", 0.05)
    monkeypatch.setattr(BatchFollower, "_on_event", lambda *_: None)
    async with runs.running(batch(), SYSTEM) as run:
        await finish(resources)
        assert await run.image_names() == []


async def test_item_failure_is_raised_with_its_reason(runs: Runs, resources: Resources) -> None:
    with pytest.raises(RunFailed, match="no paint"):
        async with runs.running(batch(2), SYSTEM) as run:
            await finish(resources, "failed", error=("ValueError", "no paint", "trace"))
            await run.image_names()
    assert await statuses(resources) == ["failed", "canceled"]


@pytest.mark.parametrize("how", ["cancel", "delete", "clear"])
async def test_items_canceled_by_others_raise_run_canceled(runs: Runs, resources: Resources, how: str) -> None:
    with pytest.raises(RunCanceled):
        async with runs.running(batch(), SYSTEM) as run:
            waiting = asyncio.ensure_future(run.image_names())
            await asyncio.sleep(0)
            if how == "clear":
                await service.clear(resources, ItemFilter(queue_id="default"))
            else:
                await getattr(service, how)(resources, "default", run.item_ids[0])
            await waiting


async def test_leaving_early_cancels_the_items(runs: Runs, resources: Resources) -> None:
    async def wait() -> None:
        async with runs.running(batch(3), SYSTEM) as run:
            await run.image_names()

    task = asyncio.create_task(wait())
    while not await statuses(resources):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while set(await statuses(resources)) != {"canceled"}:
        await asyncio.sleep(0.01)


async def test_a_run_that_does_not_fit_into_the_queue_enqueues_nothing(runs: Runs, resources: Resources) -> None:
    with pytest.raises(QueueFull):
        await runs.enqueue(batch(6), SYSTEM)
    assert await statuses(resources) == []
    assert runs.for_user(SYSTEM) == []


async def test_only_own_runs_are_listed(runs: Runs) -> None:
    run = await runs.enqueue(batch(), SYSTEM)
    assert runs.for_user(SYSTEM) == [run]
    assert runs.for_user(User(user_id="somebody")) == []
    runs.close(run)


async def statuses(resources: Resources) -> list[str]:
    import json

    from invokeclone.queue import store

    async with resources.database.read() as connection:
        item_ids = await store.list_order(connection, "default")
        listed = json.loads(await store.get_many_json(connection, "default", item_ids))
    return [item["status"] for item in listed]
