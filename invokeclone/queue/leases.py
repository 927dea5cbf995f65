"""Leases of claimed items: renewed while their workers live, and ended on proof of death.

A claim gives an item to a worker for LEASE_S seconds of the database's clock and increments the item's fence. The server
renews the leases of the workers that it knows to be alive, however long their items take. An item whose lease is over is
interrupted: its fence is incremented, so that a late result is refused, and it is pending again for any worker. That is
not an error of the item, unless it happens MAX_INTERRUPTIONS times.

A waiting or resumed item keeps its lease while its worker has cached data of it; when that lease is over, any worker may
continue it.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, case, literal, literal_column, null, select, type_coerce, update

from invokeclone.kit import log
from invokeclone.kit.errors import Conflict
from invokeclone.kit.events import Event
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.functions import database_now, database_now_plus
from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, json_list, members, parameter
from invokeclone.kit.sql.transactions import Changes
from invokeclone.kit.times import now
from invokeclone.queue import outbox, store
from invokeclone.queue.calls import chain
from invokeclone.queue.reports import change_items
from invokeclone.queue.rows import CLAIMED, RECORD, ClaimedItem, Item, columns, has_status, to_claimed_item, to_item
from invokeclone.queue.statements import HAS_FENCE, IS_ITEM, status_values
from invokeclone.tables import session_queue
from invokeclone.webhooks.outbox import has_any, list_subscriptions

MAX_INTERRUPTIONS = 3
"""Number of interruptions after which an item fails: it may be what its workers die of."""

_LEASED = columns.lease_expires_at.is_not(None)
_EXPIRED = (_LEASED, columns.lease_expires_at < database_now())
_OF_WORKER = (columns.worker_id == parameter("worker_id"),)
_log = log.get("queue")


class ItemNotHeld(Conflict):
    """The item is not running, or was claimed by another worker since."""

    def __init__(self, item_id: int) -> None:
        super().__init__(f"Item {item_id} is not held by this worker: it has ended, or another worker has claimed it")


def _select_leased() -> Select[Any]:
    """Select the leased items of `worker_ids` that no other transaction is changing, which may be ending them."""
    item = session_queue.alias("leased").c
    is_leased = item.lease_expires_at.is_not(None)
    query = select(item.item_id).where(is_leased, item.worker_id.in_(members("worker_ids")))
    return query.order_by(item.item_id).with_for_update(skip_locked=True)


_ANY_LEASE = PreparedStatement(select(columns.item_id).where(_LEASED).limit(1))
_RENEW = PreparedStatement(
    update(session_queue)
    .where(columns.item_id.in_(_select_leased()))
    .values(lease_expires_at=database_now_plus(parameter("lease_s")))
)


def _interrupt(*conditions: ColumnElement[bool]) -> PreparedStatement:
    """Return running items to the queue; those that were interrupted too often fail with a message about `reason`."""
    pending, failed = status_values("pending", parameter("at")), status_values("failed", parameter("at"))
    number = columns.interruptions + type_coerce(parameter("counted"), Integer)
    fails = number >= literal_column(str(MAX_INTERRUPTIONS))
    message = literal(f"interrupted {MAX_INTERRUPTIONS} times because its workers died or lost their connection: ")
    failed |= {
        "error_type": literal("WorkerDied"),
        "error_message": message + parameter("reason"),
        "error_traceback": message + parameter("reason"),
    }
    values: dict[str, Any] = pending | {
        "status": case((fails, literal("failed")), else_=literal("pending")),
        "completed_at": case((fails, failed["completed_at"]), else_=columns.completed_at),
        "interruptions": number,
        "fence": columns.fence + 1,
        "worker_id": null(),
        "device": None,
        "lease_expires_at": None,
    }
    values |= {name: case((fails, failed[name]), else_=None) for name in failed if name.startswith("error_")}
    statement = update(session_queue).where(has_status(columns, "in_progress"), *conditions).values(values)
    return PreparedStatement(statement.returning(*RECORD))


def _release(*conditions: ColumnElement[bool]) -> PreparedStatement:
    """Let any worker continue the waiting and resumed items of workers that are gone."""
    idle = columns.status.in_(("pending", "waiting"))
    return PreparedStatement(
        update(session_queue).where(idle, _LEASED, *conditions).values(device=None, lease_expires_at=None)
    )


_INTERRUPT_EXPIRED, _RELEASE_EXPIRED = _interrupt(*_EXPIRED), _release(*_EXPIRED)
_INTERRUPT_OF_WORKER, _RELEASE_OF_WORKER = _interrupt(*_OF_WORKER), _release(*_OF_WORKER)
_HELD = (columns.worker_id == parameter("worker_id"), has_status(columns, "in_progress"))
_HELD_ITEM = PreparedStatement(select(*RECORD).where(IS_ITEM, HAS_FENCE, *_HELD))
_CLAIMED_BY = PreparedStatement(select(columns.item_id).where(IS_ITEM, HAS_FENCE, *_OF_WORKER))
_LOCKED_CLAIM = PreparedStatement(
    select(columns.item_id)
    .where(IS_ITEM, HAS_FENCE, has_status(columns, "in_progress"))
    .with_for_update(read=True, of=session_queue)
)
_HELD_CLAIM = PreparedStatement(select(*CLAIMED).where(*_HELD).limit(1))


async def renew(resources: Resources, worker_ids: Iterable[str]) -> None:
    """Renew the leases of these workers, which are alive; writes only if any item has a lease."""
    if await _ANY_LEASE.first(resources.database) is None:
        return
    listed = json_list(worker_ids)
    await resources.database.transact(
        lambda connection: _RENEW.rows(connection, worker_ids=listed, lease_s=store.LEASE_S), exclusive=False
    )


async def rescue(resources: Resources) -> list[int]:
    """Interrupt the items whose lease is over; return their ids."""
    if await _ANY_LEASE.first(resources.database) is None:
        return []
    reason = "the last one did not renew its lease"
    return await _end_claims(resources, (_INTERRUPT_EXPIRED, _RELEASE_EXPIRED), reason=reason, counted=1)


async def interrupt(resources: Resources, worker_id: str, reason: str, *, counted: bool = True) -> list[int]:
    """Interrupt the items of a worker that is known to have ended for `reason`; return their ids.

    The end of a worker that was asked to stop is not `counted` towards MAX_INTERRUPTIONS.
    """
    statements = (_INTERRUPT_OF_WORKER, _RELEASE_OF_WORKER)
    return await _end_claims(resources, statements, reason=reason, worker_id=worker_id, counted=int(counted))


async def release(connection: Changes, worker_id: str) -> None:
    """Let any worker continue the waiting and resumed items of a worker that is gone."""
    await _RELEASE_OF_WORKER.rows(connection, worker_id=worker_id)


async def _end_claims(
    resources: Resources, statements: tuple[PreparedStatement, PreparedStatement], **values: str | int
) -> list[int]:
    interrupting, releasing = statements

    async def end(connection: Changes) -> tuple[list[Item], list[Event]]:
        items = [to_item(row) for row in sorted(await interrupting.rows(connection, at=now(), **values))]
        await releasing.rows(connection, **values)
        events: list[Event] = [await chain.status_event(connection, item) for item in items]
        ended = [item for item in items if item.status == "failed"]
        for item in ended if await has_any(connection) else ():
            await outbox.record_item(connection, item, await list_subscriptions(connection, item.user_id))
        return items, events + await chain.settle_calls(connection, *ended)

    items = await change_items(resources, end)
    for item in items:
        extra = {"action": "interrupt_item", **item.log_fields}
        _log.warning("item %s is interrupted: %s", item.item_id, values["reason"], extra=extra)
    return [item.item_id for item in items]


async def get_held_item(source: Source, worker_id: str, item_id: int, fence: int) -> Item:
    """Return an item that the worker runs by its claim with `fence`. Raises ItemNotHeld."""
    row = await _HELD_ITEM.first(source, worker_id=worker_id, item_id=item_id, with_fence=fence)
    if row is None:
        raise ItemNotHeld(item_id)
    return to_item(row)


async def was_claimed_by(source: Source, worker_id: str, item_id: int, fence: int) -> bool:
    """Return whether the latest claim of an item is the worker's with `fence`, even if the item has ended since."""
    return await _CLAIMED_BY.first(source, worker_id=worker_id, item_id=item_id, with_fence=fence) is not None


async def require_claim(connection: Changes, item_id: int, fence: int) -> None:
    """Raise ItemNotHeld unless the item runs by its claim with `fence`; that stays so until the transaction ends."""
    if await _LOCKED_CLAIM.first(connection, item_id=item_id, with_fence=fence) is None:
        raise ItemNotHeld(item_id)


async def get_held_claim(resources: Resources, worker_id: str) -> ClaimedItem | None:
    """Return the item that the worker holds, for a worker that did not receive the result of its claim."""
    row = await _HELD_CLAIM.first(resources.database, worker_id=worker_id)
    return to_claimed_item(row) if row else None
