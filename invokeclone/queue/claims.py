"""Operations of workers on items: claim, finish, and what happens to the items of workers that are gone.

Each function is one transaction, after which its events are emitted.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from invokeclone.kit.events import Event
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.transactions import Changes
from invokeclone.queue import bulk, bulk_counts, leases, store
from invokeclone.queue.bulk import ItemFilter
from invokeclone.queue.calls import chain
from invokeclone.queue.reports import change_items, report
from invokeclone.queue.rows import ClaimedItem, Item
from invokeclone.queue.schemas import TERMINAL, Status
from invokeclone.queue.service import DEFAULT_QUEUE


class ItemError(NamedTuple):
    """Class, message and traceback of the error of a failed item."""

    error_type: str
    error_message: str
    error_traceback: str


async def claim(
    resources: Resources, device: str, resident: Collection[str] = (), *, worker_id: str | None = None
) -> ClaimedItem | None:
    """Claim the next item for `device` and `worker_id`; None if there is none or the workers are paused.

    `resident` are the keys of models loaded on the device. Unless the queue is in FIFO mode, items that use them may be
    claimed somewhat earlier (model affinity).
    """
    settings = resources.settings
    fair = settings.session_queue_mode == "round_robin"
    options: dict[str, Any] = {"round_robin": fair and settings.multiuser, "resident": resident if fair else ()}

    async def take(connection: Changes) -> tuple[ClaimedItem | None, Event | None]:
        item = await store.claim(connection, device, worker_id=worker_id, **options)
        return item, await chain.status_event(connection, item) if item else None

    item, event = await resources.database.transact(take, exclusive=False)
    if event:
        report(resources, [event])
    return item


class WorkerClaims:
    """Claims items for one worker, which runs one at a time."""

    def __init__(self, resources: Resources, device: str, worker_id: str) -> None:
        """Claim for `worker_id` on `device`."""
        self._resources = resources
        self._device = device
        self._worker_id = worker_id
        self.is_uncertain = False
        """Whether the worker may hold an item without knowing it: the result of its last claim was lost."""

    async def claim(self, resident: Collection[str] = ()) -> ClaimedItem | None:
        """Claim the next item, or return the one that the worker holds if that is uncertain."""
        if self.is_uncertain:
            item = await leases.get_held_claim(self._resources, self._worker_id)
            if item is not None:
                report(self._resources, [await chain.status_event(self._resources.database, item)])
                self.is_uncertain = False
                return item
        self.is_uncertain = True
        item = await claim(self._resources, self._device, resident, worker_id=self._worker_id)
        self.is_uncertain = False
        return item


async def finish(
    resources: Resources,
    item_id: int,
    status: Status,
    *,
    session_json: str | None = None,
    error: tuple[str, str, str] | None = None,
    fence: int | None = None,
) -> Item | None:
    """Save an item's session (the part after its graph, see `GraphExecutionState.rest_json`) and set its final status.

    Returns the item, or None without an event if it had ended already, is deleted, or was claimed again since the claim
    with `fence`. A repetition, after an error left open whether the item has ended, is reported as the first call would be.
    """

    async def end(connection: Changes) -> tuple[list[Item], list[Event]]:
        item = await store.set_status(connection, item_id, status, error, fence=fence, rest=session_json)
        repeated = None if item else await store.find_ended(connection, item_id, status, error, fence)
        item = item or repeated
        if item is None and session_json is not None:
            await store.save_session(connection, item_id, session_json, fence=fence)
        events: list[Event] = [await chain.status_event(connection, item)] if item else []
        await bulk_counts.sum_up(connection, item_id)
        events += await chain.settle_calls(connection, item)
        if repeated:  # the first call has settled its callers
            events += await chain.list_caller_events(connection, repeated)
        return [item] if item else [], events

    return next(iter(await change_items(resources, end)), None)


async def is_running(resources: Resources, item_id: int, fence: int | None = None) -> bool:
    """Return whether an item is running, by its claim with `fence`; False if it is deleted."""
    return await store.get_status(resources.database, item_id, fence=fence) == "in_progress"


async def list_active(resources: Resources, item_ids: Sequence[int]) -> set[int]:
    """Return the items that have not ended."""
    items = await store.list_items(resources.database, item_ids)
    return {item.item_id for item in items if item.status not in TERMINAL}


async def fail_orphans(resources: Resources, worker_id: str, reason: str) -> list[int]:
    """Fail the items of a worker that died, with `reason` as the message; return their ids."""
    error = ItemError("WorkerDied", reason, reason)

    async def fail(connection: Changes) -> tuple[list[Item], list[Event]]:
        orphans = await bulk.list_running(connection, worker_id=worker_id)
        changed = [await store.set_status(connection, item_id, "failed", error) for item_id in orphans]
        failed = [item for item in changed if item]
        await leases.release(connection, worker_id)
        events: list[Event] = [await chain.status_event(connection, item) for item in failed]
        return failed, events + await chain.settle_calls(connection, *failed)

    return [item.item_id for item in await change_items(resources, fail)]


async def recover(resources: Resources, *, shared: bool = False) -> None:
    """Reset the queue at server start: cancel interrupted items, resume the workers, prune history. Emits no events.

    Items of joined workers, and all items of a database that is `shared` with other servers, end by their leases.
    """
    settings = resources.settings

    async def order(connection: Changes) -> None:
        if not shared:
            await store.resume(connection)
            await bulk.cancel_interrupted(connection)
            await chain.settle(connection)
            await chain.forget_devices(connection)
        if settings.clear_queue_on_startup and settings.events_url is None:  # with one, other servers run items
            await bulk.delete_many(connection, ItemFilter(queue_id=DEFAULT_QUEUE))
        elif settings.max_queue_history is not None:
            await bulk.keep_newest(connection, DEFAULT_QUEUE, settings.max_queue_history)

    await resources.database.transact(order)
