"""Webhook events of the queue: which ends of items and batches write them, for whom, and in the same transaction."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select, update

from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.graph.vocabulary.fields import ImageField
from invokeclone.kit.resources import Resources
from invokeclone.kit.times import now
from invokeclone.queue import claims, leases, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.bulk import ItemFilter
from invokeclone.queue.rows import ClaimedItem
from invokeclone.tables import users, webhook_deliveries, webhooks
from invokeclone.users.current import SYSTEM, User
from invokeclone.webhooks import outbox
from invokeclone.webhooks import store as webhook_store
from invokeclone.webhooks.schemas import EVENTS, WebhookRequest
from tests.accounts import account

Q = ItemFilter(queue_id="default")
Add = Callable[..., Awaitable[list[int]]]


@pytest.fixture
def add(resources: Resources, make: Any) -> Add:
    async def act(batch_id: str = "b", user: User = SYSTEM, **fields: Any) -> list[int]:
        batch = Batch.model_validate(make.batch(batch_id=batch_id, **fields))
        return (await service.enqueue(resources, "default", batch, user=user)).item_ids[::-1]

    return act


async def subscribe(resources: Resources, *events: str, user_id: str = "system") -> str:
    request = WebhookRequest(url="https://example.com", events=list(events or EVENTS))
    return await resources.database.transact(
        lambda connection: webhook_store.add(connection, user_id, request, "whsec_AAAA")
    )


async def written(resources: Resources) -> list[dict[str, Any]]:
    """Return the bodies of all deliveries."""
    async with resources.database.read() as connection:
        rows = await connection.execute(select(webhook_deliveries.c.body).order_by(webhook_deliveries.c.created_at))
        return [json.loads(body) for (body,) in rows]


async def names(resources: Resources) -> list[str]:
    return sorted(body["type"] for body in await written(resources))


async def counts(resources: Resources) -> list[tuple[str, int, int, int]]:
    """Return batch and counts of completed, failed and canceled items of the events of batches."""
    data = [body["data"] for body in await written(resources) if body["type"] == "batch_done"]
    return [(item["batch_id"], item["completed"], item["failed"], item["canceled"]) for item in data]


async def take(resources: Resources) -> ClaimedItem:
    item = await claims.claim(resources, "cpu")
    assert item
    return item


async def test_without_webhooks_nothing_is_written(resources: Resources, add: Add) -> None:
    await add(runs=2)
    await claims.finish(resources, (await take(resources)).item_id, "completed")
    await service.clear(resources, Q)
    assert await written(resources) == []


async def test_the_last_item_of_a_batch_ends_it(resources: Resources, add: Add) -> None:
    await subscribe(resources)
    await add(runs=3, origin="o", destination="d")
    await add("other")
    for status in ("completed", "failed"):
        error = ("OutOfMemoryError", "no memory", "trace") if status == "failed" else None
        await claims.finish(resources, (await take(resources)).item_id, status, error=error)  # type: ignore[arg-type]
    assert await names(resources) == ["item_completed", "item_failed"]
    await service.cancel(resources, "default", 3)
    assert await names(resources) == ["batch_done", "item_completed", "item_failed"]
    failed = next(body for body in await written(resources) if body["type"] == "item_failed")
    assert failed["timestamp"].endswith("Z")
    data = failed["data"]
    assert (data["item_id"], data["batch_id"], data["status"]) == (2, "b", "failed")
    assert (data["error_type"], data["error_message"]) == ("OutOfMemoryError", "no memory")
    assert "trace" not in json.dumps(failed)
    done = next(body["data"] for body in await written(resources) if body["type"] == "batch_done")
    assert done == {
        "queue_id": "default",
        "batch_id": "b",
        "user_id": "system",
        "origin": "o",
        "destination": "d",
        "completed": 1,
        "failed": 1,
        "canceled": 1,
        "total": 3,
    }


async def test_completed_items_have_the_names_of_their_images(resources: Resources, add: Add, make: Any) -> None:
    await subscribe(resources, "item_completed")
    await add(graph=make.graph(a={"is_intermediate": False}, b={"is_intermediate": True}))
    item = await take(resources)
    state = GraphExecutionState.model_validate_json(item.session)
    while node := state.next():
        name = f"{state.prepared_source_mapping[node.id]}.png"
        state.complete(node.id, ImageOutput(image=ImageField(image_name=name), width=8, height=8))
    await claims.finish(resources, item.item_id, "completed", session_json=state.rest_json())
    (body,) = await written(resources)
    assert body["data"]["image_names"] == ["a.png"]


@pytest.mark.parametrize(
    "end",
    [
        lambda resources: service.cancel_many(resources, Q),
        lambda resources: service.cancel_idle(resources, Q),
        lambda resources: service.delete_many(resources, Q),
        lambda resources: service.delete_idle(resources, Q),
        lambda resources: service.clear(resources, Q),
        lambda resources: service.clear(resources, ItemFilter(queue_id="default", owner="system")),
        lambda resources: service.delete(resources, "default", 2),
    ],
    ids=["cancel_many", "cancel_idle", "delete_many", "delete_idle", "clear", "clear_own", "delete"],
)
async def test_every_way_to_remove_the_last_active_item_ends_the_batch(
    resources: Resources, add: Add, end: Callable[[Resources], Awaitable[Any]]
) -> None:
    await subscribe(resources, "batch_done")
    await add(runs=2)
    await claims.finish(resources, (await take(resources)).item_id, "completed")
    assert await counts(resources) == []
    await end(resources)
    assert [row[0] for row in await counts(resources)] == ["b"]
    await service.prune(resources, Q)
    await service.clear(resources, Q)
    assert len(await counts(resources)) == 1, "no more than once"


async def test_items_that_a_stopped_server_interrupted_end_their_batches(resources: Resources, add: Add) -> None:
    await subscribe(resources)
    await add()
    await take(resources)
    await claims.recover(resources)
    assert await counts(resources) == [("b", 0, 0, 1)]


async def test_items_of_a_dead_worker_have_failed(resources: Resources, add: Add) -> None:
    await subscribe(resources)
    await add()
    await take(resources)
    await claims.fail_orphans(resources, "cpu", "the worker died")
    assert await names(resources) == ["batch_done", "item_failed"]


async def test_a_retried_batch_ends_again(resources: Resources, add: Add) -> None:
    await subscribe(resources, "batch_done")
    (item_id,) = await add()
    await service.cancel(resources, "default", item_id)
    await service.retry(resources, "default", [item_id])
    await claims.finish(resources, (await take(resources)).item_id, "completed")
    assert sorted(await counts(resources)) == [("b", 0, 0, 1), ("b", 1, 0, 1)]


async def test_users_receive_the_events_of_their_own_items(resources: Resources, add: Add) -> None:
    alice, bob = await account(resources.database, "alice"), await account(resources.database, "bob")
    alices = await subscribe(resources, "batch_done", user_id=alice.user_id)
    for one in (alice, bob):
        await add(user=User(user_id=one.user_id), runs=2)
    await service.cancel_many(resources, ItemFilter(queue_id="default", owner=bob.user_id))
    assert await written(resources) == []
    await service.cancel_many(resources, Q)
    async with resources.database.read() as connection:
        rows = (await connection.execute(select(webhook_deliveries.c.webhook_id))).all()
    assert [row[0] for row in rows] == [alices]
    assert await counts(resources) == [("b", 0, 0, 2)]


@pytest.mark.parametrize("off", ["webhook", "account"])
async def test_disabled_webhooks_and_accounts_receive_nothing(resources: Resources, add: Add, off: str) -> None:
    alice = await account(resources.database, "alice")
    webhook_id = await subscribe(resources, user_id=alice.user_id)
    async with resources.database.write() as connection:
        if off == "webhook":
            await connection.execute(
                update(webhooks).where(webhooks.c.webhook_id == webhook_id).values(disabled_at=now())
            )
        else:
            await connection.execute(update(users).where(users.c.user_id == alice.user_id).values(is_active=False))
    await add(user=User(user_id=alice.user_id))
    await service.cancel_many(resources, Q)
    assert await written(resources) == []


async def test_events_and_statuses_are_written_together_or_not_at_all(
    resources: Resources, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    await subscribe(resources, "batch_done")
    (item_id,) = await add()

    async def fail(*_: Any) -> None:
        raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "add", fail)
        with pytest.raises(RuntimeError, match="crash"):
            await service.cancel(resources, "default", item_id)
    assert await store.get_status(resources.database, item_id) == "pending"
    await service.cancel(resources, "default", item_id)
    assert await counts(resources) == [("b", 0, 0, 1)]


async def test_an_item_that_its_workers_died_of_has_failed(
    resources: Resources, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LEASE_S", -1)
    await subscribe(resources)
    await add()
    for _ in range(leases.MAX_INTERRUPTIONS):
        assert await names(resources) == []
        await take(resources)
        assert len(await leases.rescue(resources)) == 1
    assert await names(resources) == ["batch_done", "item_failed"]
    assert await counts(resources) == [("b", 0, 1, 0)]
