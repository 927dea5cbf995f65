"""Operations of clients on batches and items: each function is one transaction, after which its events are emitted.

Workers are notified of cancels by events; their own operations are in `claims`.
"""

from collections.abc import Iterable, Sequence

from invokeclone.images.errors import ImagesMoving
from invokeclone.kit.errors import Forbidden
from invokeclone.kit.events import Event
from invokeclone.kit.process.offload import off_loop
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.transactions import Changes, CommitUnknown
from invokeclone.queue import bulk, capacity, insertion, reorder, store
from invokeclone.queue.batches import Batch, expand
from invokeclone.queue.bulk import ItemFilter
from invokeclone.queue.calls import chain
from invokeclone.queue.events import (
    BatchEnqueuedEvent,
    ItemsClearedEvent,
    QueueClearedEvent,
    QueueItemsCanceledEvent,
    QueueItemsRetriedEvent,
    QueueItemStatusChangedEvent,
)
from invokeclone.queue.insertion import BatchColumns
from invokeclone.queue.reorder import QueuePosition
from invokeclone.queue.reports import list_stored, report
from invokeclone.queue.rows import Item
from invokeclone.queue.schemas import (
    TERMINAL,
    EnqueueBatchResult,
    RetryItemsResult,
)
from invokeclone.users import rights
from invokeclone.users.current import SYSTEM, User

DEFAULT_QUEUE = "default"


class NotYourQueueItem(Forbidden):
    """The item belongs to another user."""

    def __init__(self, item_id: int) -> None:
        super().__init__(f"Item {item_id} belongs to another user")


def _check_owner(user: User, item: Item) -> None:
    if not rights.owns(user, item.user_id):
        raise NotYourQueueItem(item.item_id)


OwnedItems = list[tuple[int, str]]
"""Pairs of item id and user id."""


# Batches


def _check_maintenance(resources: Resources) -> None:
    if resources.maintenance:
        raise ImagesMoving


async def enqueue(
    resources: Resources,
    queue_id: str,
    batch: Batch,
    *,
    prepend: bool = False,
    whole: bool = False,
    user: User = SYSTEM,
) -> EnqueueBatchResult:
    """Enqueue the items of `batch`, up to the capacity of the queue; with `prepend` before all pending items.

    In FIFO order, users who are not administrators prepend items to their own, as `move` does: otherwise they would
    overtake others. With `whole`, enqueue all items or none. Raises ImagesMoving, Unprocessable, TooLarge, and, if the
    user's quota is used up, PendingQuotaReached or DailyQuotaReached; with `whole` also QueueFull.
    """
    _check_maintenance(resources)
    limits, fair = resources.settings.limits, resources.settings.session_queue_mode == "round_robin"
    if batch.is_large:
        await off_loop(lambda: batch.check(limits))
    else:
        batch.check(limits)

    async def add(connection: Changes) -> tuple[int, int, list[int]]:
        free = await capacity.measure(connection, resources.settings, queue_id, user.user_id)
        free.check(batch.requested, whole=whole)
        batch.check_capacity(limits, free.items)
        among_own = prepend and not fair and rights.scope(user) is not None
        priority = free.highest_priority + 1 if prepend and not among_own else 0
        columns = BatchColumns(
            queue_id, batch.batch_id, priority, batch.origin, batch.destination, user.user_id, batch.workflow_json
        )
        item_ids = await insertion.add(connection, expand(batch, free.items), columns)
        enqueued = len(item_ids)
        if among_own and item_ids:
            order = await store.list_pending_items(connection, queue_id)
            priorities = reorder.plan(order, item_ids, QueuePosition("front"), rights.scope(user))
            await store.set_priorities(connection, priorities)
            priority = priorities.get(item_ids[0], priority)
        item_ids.reverse()
        if "batch_id" in batch.model_fields_set:  # the batch may already have items
            item_ids = await store.list_batch(connection, queue_id, batch.batch_id)
        return priority, enqueued, item_ids

    try:
        priority, enqueued, item_ids = await resources.database.transact(add)
    except CommitUnknown as unknown:
        priority, enqueued, item_ids = unknown.result
        if [item.batch_id for item in await list_stored(resources, item_ids[:1])] != [batch.batch_id]:
            raise
    result = EnqueueBatchResult(
        queue_id=queue_id,
        enqueued=enqueued,
        requested=batch.requested,
        batch=batch,
        priority=priority,
        item_ids=item_ids,
    )
    event = BatchEnqueuedEvent(
        queue_id=queue_id,
        batch_id=batch.batch_id,
        enqueued=enqueued,
        requested=min(result.requested, 2**63 - 1),  # the JSON of sockets is limited to 64-bit integers
        priority=priority,
        origin=batch.origin,
        user_id=user.user_id,
    )
    report(resources, [event])
    return result


async def retry(
    resources: Resources, queue_id: str, item_ids: Sequence[int], *, user: User = SYSTEM
) -> RetryItemsResult:
    """Retry failed and canceled items, up to the capacity of the queue; other items and unknown ids are skipped.

    For an item of a workflow call the first item of the call chain is retried, which makes its calls again. The quota
    is that of `user`. Raises QueueItemNotFound for an item of another queue, NotYourQueueItem for an item of another
    user, and, if the quota is used up, PendingQuotaReached or DailyQuotaReached.
    """
    _check_maintenance(resources)

    async def repeat(connection: Changes) -> list[tuple[int, str]]:
        items = await store.list_items(connection, await store.list_roots(connection, item_ids))
        for item in items:
            if item.queue_id != queue_id:
                raise store.QueueItemNotFound(queue_id, item.item_id)
            _check_owner(user, item)
        ended = [item for item in items if item.status in ("failed", "canceled")]
        if not ended:
            return []
        free = await capacity.measure(connection, resources.settings, queue_id, user.user_id)
        free.check(len(ended), whole=False)
        for item in ended[: free.items]:
            await store.repeat(connection, item.item_id)
        return [(item.item_id, item.user_id) for item in ended[: free.items]]

    retried = await resources.database.transact(repeat)
    if retried:
        report(resources, [QueueItemsRetriedEvent.of(queue_id, retried)])
    return RetryItemsResult(queue_id=queue_id, retried_item_ids=[item_id for item_id, _ in retried])


# One item


async def cancel(resources: Resources, queue_id: str, item_id: int, *, user: User = SYSTEM) -> str:
    """Cancel an item unless it has ended; return it as JSON text.

    Raises QueueItemNotFound or NotYourQueueItem.
    """

    async def end(connection: Changes) -> tuple[list[Event], str]:
        before = await store.get(connection, queue_id, item_id)
        _check_owner(user, before)
        events = [*await _cancel(connection, [item_id]), *await chain.settle_calls(connection, before)]
        return events, await store.get_json(connection, queue_id, item_id)

    events, text = await resources.database.transact(end)
    report(resources, events)
    return text


async def prepend(resources: Resources, queue_id: str, item_id: int, *, user: User = SYSTEM) -> str:
    """Move a pending item to the front, as `move` does; return it as JSON text. Raises the errors of `move`."""

    async def move_one(connection: Changes) -> tuple[list[Event], str]:
        events = await _move(connection, queue_id, [item_id], QueuePosition("front"), user)
        return events, await store.get_json(connection, queue_id, item_id)

    events, text = await resources.database.transact(move_one)
    report(resources, events)
    return text


async def move(
    resources: Resources, queue_id: str, item_ids: Sequence[int], position: QueuePosition, *, user: User = SYSTEM
) -> list[int]:
    """Move pending items, in the given order, to a position; return the ids of all pending items in their new order.

    Items that are not pending any more are skipped. Users who are not administrators move their items among their own.
    Raises QueueItemNotFound, NotYourQueueItem, TargetNotPending and TargetMoved.
    """

    async def move_all(connection: Changes) -> tuple[list[Event], list[int]]:
        events = await _move(connection, queue_id, item_ids, position, user)
        return events, await store.list_pending(connection, queue_id)

    events, order = await resources.database.transact(move_all)
    report(resources, events)
    return order


async def _move(
    connection: Changes, queue_id: str, item_ids: Sequence[int], position: QueuePosition, user: User
) -> list[Event]:
    """Move items; return an event if the order has changed.

    InvokeAI has no event for this. The web UIs update the queue on the one for a status, here the unchanged one of a
    moved item.
    """
    for item_id in item_ids if position.target is None else [*item_ids, position.target]:
        _check_owner(user, await store.get(connection, queue_id, item_id))
    order = await store.list_pending_items(connection, queue_id)
    priorities = reorder.plan(order, item_ids, position, rights.scope(user))
    await store.set_priorities(connection, priorities)
    changed = next((item_id for item_id in (*item_ids, *priorities) if item_id in priorities), None)
    if changed is None:
        return []
    return [await chain.status_event(connection, await store.get(connection, queue_id, changed))]


async def _cancel(connection: Changes, item_ids: Iterable[int]) -> list[QueueItemStatusChangedEvent]:
    changed = [await store.set_status(connection, item_id, "canceled") for item_id in item_ids]
    return [await chain.status_event(connection, item) for item in changed if item]


async def delete(resources: Resources, queue_id: str, item_id: int, *, user: User = SYSTEM) -> None:
    """Delete an item, or all items of its call chain, after canceling active ones.

    Raises QueueItemNotFound or NotYourQueueItem.
    """

    async def remove(connection: Changes) -> list[QueueItemStatusChangedEvent]:
        before = await store.get(connection, queue_id, item_id)
        _check_owner(user, before)
        chain = await store.list_chain(connection, item_id) if before.in_call else [item_id]
        events = await _cancel(connection, chain)
        await bulk.delete_items(connection, queue_id, chain)
        return events

    report(resources, await resources.database.transact(remove))


# Many items


async def cancel_many(resources: Resources, item_filter: ItemFilter) -> int:
    """Cancel the selected items and return their number; emits one event per running item, and one for all others."""

    async def end(connection: Changes) -> tuple[OwnedItems, list[QueueItemStatusChangedEvent], list[Event]]:
        idle = await bulk.cancel_idle(connection, item_filter)
        changed = await _cancel(connection, await bulk.list_running(connection, item_filter))
        return idle, changed, await chain.settle(connection)

    idle, changed, call_events = await resources.database.transact(end)
    _report_canceled(resources, item_filter.queue_id, idle)
    report(resources, [*changed, *call_events])
    return len(idle) + len(changed)


def _report_canceled(resources: Resources, queue_id: str, items: OwnedItems) -> None:
    if items:
        report(resources, [QueueItemsCanceledEvent.of(queue_id, items)])


async def cancel_idle(resources: Resources, item_filter: ItemFilter) -> int:
    """Cancel the selected items that are not running nor in the call chain of a running item; return their number."""

    async def end(connection: Changes) -> tuple[OwnedItems, list[Event]]:
        idle = await bulk.cancel_idle(connection, item_filter, spare_running=True)
        return idle, await chain.settle(connection)

    idle, call_events = await resources.database.transact(end)
    _report_canceled(resources, item_filter.queue_id, idle)
    report(resources, call_events)
    return len(idle)


async def delete_idle(resources: Resources, item_filter: ItemFilter) -> int:
    """Delete the selected pending and waiting items, except in call chains of running items; return their number."""

    async def remove(connection: Changes) -> tuple[OwnedItems, list[Event]]:
        idle = await bulk.delete_many(connection, item_filter, bulk.IDLE, spare_running=True)
        return idle, await chain.settle(connection)

    idle, call_events = await resources.database.transact(remove)
    _report_canceled(resources, item_filter.queue_id, idle)
    report(resources, call_events)
    return len(idle)


async def delete_many(resources: Resources, item_filter: ItemFilter) -> int:
    """Delete the selected items, after canceling running ones; return their number."""

    async def remove(connection: Changes) -> tuple[list[QueueItemStatusChangedEvent], OwnedItems, list[Event]]:
        changed = await _cancel(connection, await bulk.list_running(connection, item_filter))
        deleted = await bulk.delete_many(connection, item_filter)
        return changed, deleted, await chain.settle(connection)

    changed, deleted, call_events = await resources.database.transact(remove)
    reported_ids = {event.item_id for event in changed}
    report(resources, [*changed, *call_events])
    _report_canceled(resources, item_filter.queue_id, [pair for pair in deleted if pair[0] not in reported_ids])
    return len(deleted)


async def clear(resources: Resources, item_filter: ItemFilter) -> int:
    """Delete all items of a queue, or with `item_filter.owner` one user's, after canceling running ones."""

    async def remove(connection: Changes) -> tuple[list[Event], int]:
        last = await bulk.last_item_id(connection)
        changed = await _cancel(connection, await bulk.list_running(connection, item_filter))
        deleted = await bulk.empty(connection, item_filter)
        queue_id, owner = item_filter.queue_id, item_filter.owner
        cleared = ItemsClearedEvent(queue_id=queue_id, user_id=owner, last_item_id=last)
        call_events = await chain.settle(connection)
        return [*changed, *call_events, cleared, QueueClearedEvent(queue_id=queue_id, user_id=owner)], deleted

    events, deleted = await resources.database.transact(remove)
    report(resources, events)
    return deleted


async def prune(resources: Resources, item_filter: ItemFilter) -> int:
    """Delete the selected items that have ended; return their number."""
    return await resources.database.transact(lambda connection: bulk.empty(connection, item_filter, TERMINAL))
