"""Quotas at every way to enqueue: batches, prompts, retries, workflow calls, compatibility APIs; also at once."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from invokeclone.kit.requests import Application
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database, open_database
from invokeclone.queue import claims, service
from invokeclone.queue.batches import Batch
from invokeclone.queue.capacity import QueueFull
from invokeclone.users import quotas
from invokeclone.users.current import SYSTEM, User
from invokeclone.users.quotas import DailyQuotaReached, PendingQuotaReached

ALICE, BOB = User(user_id="alice"), User(user_id="bob")
Batches = Callable[..., Batch]


@pytest.fixture
def batch(make: Any) -> Batches:
    def act(runs: int = 1, **fields: Any) -> Batch:
        return Batch.model_validate(make.batch(runs=runs, **fields))

    return act


@pytest.fixture
def limited(resources: Resources, app: Application) -> Callable[..., Resources]:
    """Return the resources of the application with changed settings."""

    def act(**settings: Any) -> Resources:
        changed = replace(resources, settings=resources.settings.model_copy(update=settings))
        app.services.add(Resources, changed)
        return changed

    return act


async def limit_system(resources: Resources, **values: int | None) -> None:
    async with resources.database.write() as connection:
        await quotas.change(connection, SYSTEM.user_id, values)


async def test_a_batch_is_cut_to_the_users_quota_of_all_queues(limited: Any, batch: Batches) -> None:
    resources = limited(max_pending_items_per_user=5)
    assert (await service.enqueue(resources, "one", batch(2), user=ALICE)).enqueued == 2
    assert (await service.enqueue(resources, "two", batch(9), user=ALICE)).enqueued == 3
    with pytest.raises(PendingQuotaReached, match="at most 5 pending items"):
        await service.enqueue(resources, "three", batch(), user=ALICE)
    assert (await service.enqueue(resources, "one", batch(9), user=BOB)).enqueued == 5
    assert await claims.claim(resources, "cpu")
    assert (await service.enqueue(resources, "one", batch(9), user=ALICE)).enqueued == 1


async def test_whole_batches_are_enqueued_completely_or_not_at_all(limited: Any, batch: Batches) -> None:
    resources = limited(max_pending_items_per_user=5, max_queue_size=8)
    with pytest.raises(PendingQuotaReached):
        await service.enqueue(resources, "q", batch(6), whole=True, user=ALICE)
    assert (await service.enqueue(resources, "q", batch(5), whole=True, user=ALICE)).enqueued == 5
    with pytest.raises(QueueFull):
        await service.enqueue(resources, "q", batch(4), whole=True, user=BOB)


async def test_a_full_queue_is_no_error_for_a_user_with_quota(limited: Any, batch: Batches) -> None:
    resources = limited(max_pending_items_per_user=5, max_queue_size=3)
    assert (await service.enqueue(resources, "q", batch(5), user=ALICE)).enqueued == 3
    assert (await service.enqueue(resources, "q", batch(5), user=ALICE)).enqueued == 0


async def test_concurrent_enqueues_do_not_exceed_the_quota(limited: Any, batch: Batches) -> None:
    resources = limited(max_pending_items_per_user=10)
    databases = [open_database(resources.settings) for _ in range(4)]

    async def enqueue(database: Database) -> int:
        servers = replace(resources, database=database)
        results = await asyncio.gather(
            *(service.enqueue(servers, "q", batch(2), user=ALICE) for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(result, PendingQuotaReached) for result in results if isinstance(result, Exception))
        return sum(result.enqueued for result in results if not isinstance(result, BaseException))

    assert sum(await asyncio.gather(*map(enqueue, databases))) == 10
    for database in databases:
        await database.close()


async def test_retries_need_quota(limited: Any, batch: Batches) -> None:
    resources = limited(max_pending_items_per_user=3)
    failed = (await service.enqueue(resources, "q", batch(3), user=ALICE)).item_ids
    for item_id in failed:
        await service.cancel(resources, "q", item_id, user=ALICE)
    await service.enqueue(resources, "q", batch(), user=ALICE)
    assert len((await service.retry(resources, "q", failed, user=ALICE)).retried_item_ids) == 2
    with pytest.raises(PendingQuotaReached):
        await service.retry(resources, "q", failed, user=ALICE)
    assert (await service.retry(resources, "q", [], user=ALICE)).retried_item_ids == []


async def test_routes_answer_429_and_when_to_try_again(limited: Any, client: httpx.AsyncClient, make: Any) -> None:
    resources = limited()
    await limit_system(resources, pending_items=2)
    answers = [await client.post("enqueue_batch", json={"batch": make.batch(runs=3)}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[0].json()["enqueued"] == 2
    assert answers[1].json() == {
        "detail": "you may have at most 2 pending items; wait until some have run, or enqueue fewer at a time"
    }
    assert answers[1].headers["retry-after"] == "30"
    await limit_system(resources, pending_items=9, images_per_day=0)
    answer = await client.post("enqueue_batch", json={"batch": make.batch()})
    assert answer.status_code == 429
    assert "at most 0 images per day" in answer.json()["detail"]
    assert 0 < int(answer.headers["retry-after"]) <= 86_400


async def test_the_daily_quota_refuses_every_kind_of_enqueueing(limited: Any, batch: Batches) -> None:
    resources = limited()
    ids = (await service.enqueue(resources, "q", batch(), user=SYSTEM)).item_ids
    await service.cancel(resources, "q", ids[0])
    await limit_system(resources, images_per_day=0)
    with pytest.raises(DailyQuotaReached):
        await service.enqueue(resources, "q", batch())
    with pytest.raises(DailyQuotaReached):
        await service.retry(resources, "q", ids)
    assert (await service.enqueue(resources, "q", batch(), user=BOB)).enqueued == 1
