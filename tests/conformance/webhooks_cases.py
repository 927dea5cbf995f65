"""Webhooks and their deliveries, quotas, tokens of workers."""

from typing import Any

from sqlalchemy import update

from invokeclone.kit.times import now
from invokeclone.queue import claims, copying, leases
from invokeclone.queue import outbox as events
from invokeclone.queue import store as items
from invokeclone.queue.outbox import UserBatch
from invokeclone.tables import images, session_queue, users, videos, webhook_deliveries, webhooks
from invokeclone.users import quotas, worker_tokens
from invokeclone.webhooks import outbox, store
from invokeclone.webhooks.schemas import WebhookRequest
from tests.conformance.cases import AT, Calls, case
from tests.conformance.queue_cases import ANN, BOB, add, all_counts, fill_queue

ALL = '["batch_done","item_failed","item_completed"]'
EARLIER, DUE, LATER, FAR = (f"{day} 00:00:00.000" for day in ("2026-01-01", "2026-01-02", "2026-01-03", "2999-01-01"))


async def fill(run: Calls) -> None:
    await run.insert(
        users,
        {"user_id": "ann", "email": "a@x.io"},
        {"user_id": "bob", "email": "b@x.io", "is_active": False},
        {"user_id": "eve", "email": "e@x.io", "is_admin": True},
    )
    shared = {"url": "https://x.io/", "secret": "s", "events": ALL}
    await run.insert(
        webhooks,
        shared | {"webhook_id": "w1", "user_id": "ann"},
        shared | {"webhook_id": "w2", "user_id": "bob"},
        shared
        | {"webhook_id": "w3", "user_id": "ann", "events": '["batch_done"]', "created_at": "2025-01-01 00:00:00.000"},
    )


@case
async def hooks(run: Calls) -> None:
    await run(outbox.has_any)
    await fill(run)
    request = WebhookRequest(url="https://y.io/é", events=["batch_done", "item_failed", "batch_done"], description="d")
    added = await run(store.add, "eve", request, "secret")
    await run(store.get, added)
    for user_id in ("ann", "eve", "nobody"):
        await run(store.count, user_id)
        await run(store.list_all, user_id)
    await run(store.list_all, None)
    await run(store.get_secret, "w1")
    await run(store.get_secret, "none")
    await run(store.get, "none")
    for webhook_id in ("w1", "none"):
        await run(store.note_failure, webhook_id)
        await run(store.note_success, webhook_id)
        await run(store.disable, webhook_id, "why")
        await run(store.disable, webhook_id, "again")
    await run(store.get, "w1")
    await run(outbox.has_any)
    await run(outbox.list_subscriptions, "ann")
    await run(store.enable, "w1")
    for user_id in ("ann", "bob"):
        await run(outbox.list_subscriptions, user_id)
    await run(store.remove, "w3")
    await run(store.list_all, "ann")


@case
async def deliveries(run: Calls) -> None:
    await fill(run)
    row = {"event": "batch_done", "body": "{}"}
    await run.insert(
        webhook_deliveries,
        row | {"delivery_id": "d1", "webhook_id": "w1", "due_at": DUE},
        row | {"delivery_id": "d2", "webhook_id": "w3", "due_at": EARLIER},
        row | {"delivery_id": "d3", "webhook_id": "w1", "due_at": FAR},
        row | {"delivery_id": "d4", "webhook_id": "w1", "delivered_at": AT},
        row | {"delivery_id": "d5", "webhook_id": "w2", "due_at": DUE},
    )
    await run(store.list_due, 9)
    await run(store.list_due, 9, busy_webhooks=["w1"])
    await run(store.list_due, 9, busy_users=["ann"])
    await run(store.list_due, 1)
    await run(store.note_failure, "w3")
    for failing in (True, False):
        await run(store.list_due, 9, failing=failing)
    await run(store.claim, "d1", "wrong", FAR)
    first = await run(store.claim, "d1", DUE, FAR)
    await run(store.claim, "d1", DUE, FAR)
    await run(store.count_pending)
    await run(store.record, first, failures=1, due_at=LATER, error="e", response_status=500)
    second = await run(store.claim, "d1", LATER, FAR)
    await run(store.record, first, delivered_at=AT, response_status=200)
    await run(store.record, second, delivered_at=AT, response_status=200)
    await run(store.record, second, failed_at=AT)
    await run(store.list_deliveries, "w1")
    await run(outbox.add, ["w3"], "batch_done", {"é": 1})
    await run(store.count_pending)
    await run(store.purge, LATER)
    await run(store.advance, DUE)
    await run(store.list_deliveries, "w1")
    await run(store.disable, "w3", "why")
    await run(store.count_pending)


async def bodies(run: Calls) -> list[Any]:
    async with run.database.read() as connection:
        rows = await connection.execute(webhook_deliveries.select())
        return sorted([row.webhook_id, row.event, row.body] for row in rows)


@case
async def events_of_items(run: Calls) -> None:
    await fill_queue(run)
    await run(events.list_active, "default")
    await fill(run)
    active = await run.database.transact(lambda changes: events.list_active(changes, "default"))
    run.record(events.list_active, sorted(active))
    rest = ',"results":{},"prepared_source_mapping":{}}'
    ends: tuple[tuple[int, Any, Any], ...] = ((5, "completed", None), (6, "failed", ("E", "m", "t")))
    for item_id, status, error in ends:
        await run(items.save_session, item_id, rest)
        item = await run.database.transact(lambda changes: items.set_status(changes, item_id, status, error))  # noqa: B023
        run.record(items.set_status, item)
        run.record(events.record_item, await bodies(run))
        assert item is not None
        await run(events.record_item, item, await outbox.list_subscriptions(run.database, item.user_id))
    run.record(events.record_item, await bodies(run))
    await run(events.record_batches, [UserBatch("default", "ann's", "ann"), UserBatch("default", "b", "system")])
    run.record(events.record_batches, await bodies(run))


@case
async def quotas_of_users(run: Calls) -> None:
    await fill(run)
    await add(run, runs=3, user=ANN)
    await add(run, runs=1, user=BOB, queue="other", batch_id="x")
    settings = run.resources.settings
    limited = settings.model_copy(update={"max_pending_items_per_user": 5, "max_images_per_user_per_day": 9})
    shared = {"width": 8, "height": 8, "created_at": now()}
    for user_id in ("ann", "system"):
        image = shared | {"image_origin": "internal", "image_category": "general", "user_id": user_id}
        await run.insert(
            images,
            image | {"image_name": f"{user_id}1"},
            image | {"image_name": f"{user_id}2", "image_category": "user", "starred": True},
            image | {"image_name": f"{user_id}3", "image_origin": "external"},
            image | {"image_name": f"{user_id}4", "is_intermediate": True},
            image | {"image_name": f"{user_id}5", "created_at": AT},
        )
        video = {"video_origin": "internal", "video_category": "general", "duration": 1.0, "user_id": user_id}
        await run.insert(videos, shared | video | {"video_name": f"{user_id}6"})
    for chosen in (settings, limited):
        for user_id in ("ann", "bob", "eve", "system"):
            await run(quotas.get, chosen, user_id)
            await run(quotas.allowance, chosen, user_id)
    await run(quotas.change, "ann", {"pending_items": 4, "images_per_day": None})
    await run(quotas.change, "ann", {"pending_items": None})
    await run(quotas.change, "eve", {"pending_items": 0})
    await run(quotas.change, "nobody", {"pending_items": 0})
    for user_id in ("ann", "eve", "nobody"):
        await run(quotas.get, limited, user_id)
        await run(quotas.allowance, limited, user_id)
    await run(quotas.reset, "ann", ("images_per_day",))
    await run(quotas.get, limited, "ann")


@case
async def tokens(run: Calls) -> None:
    await run(worker_tokens.create, " ")
    text = await worker_tokens.create(run.database, "one", 3)
    run.record(worker_tokens.create, len(text))
    (stored,) = await worker_tokens.list_all(run.database)
    run.record(worker_tokens.list_all, [stored.name, stored.expires_at is None, stored.last_used_at])
    token = await worker_tokens.verify(run.database, text)
    run.record(worker_tokens.verify, [token.id == stored.id, token.name])
    await run(worker_tokens.verify, "icw_wrong")
    await run(worker_tokens.is_valid, token)
    await run(worker_tokens.note_use, token)
    run.record(worker_tokens.revoke, (await worker_tokens.revoke(run.database, stored.prefix)).name)
    await run(worker_tokens.is_valid, token)
    await run(worker_tokens.revoke, "none")


@case
async def claims_of_joined_workers(run: Calls) -> None:
    await add(run, runs=2)
    item = await claims.claim(run.resources, "cpu", worker_id="joined:w")
    assert item is not None
    for fence in (item.fence, item.fence + 1):
        await run(leases.require_claim, item.item_id, fence)
    await run(leases.require_claim, 2, 0)


@case
async def counts_of_copied_items(run: Calls) -> None:
    await fill_queue(run)
    async with run.database.write() as connection:
        await connection.execute(update(session_queue).values(destination=None))
    await run(copying.count_items)
    await all_counts(run)
