"""Bulk changes of items: selecting, canceling, deleting.

Each takes one or two statements. Deletions update the counts here and not by a trigger: without one SQLite truncates a
whole table at the cost of its pages, while deleting 1000 rows one by one costs as much as inserting them.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Delete, delete, func, literal_column, or_, select, update

from invokeclone.kit.sql.prepared_statements import (
    PreparedStatement,
    dialect_of,
    integers,
    json_list,
    members,
    parameter,
)
from invokeclone.kit.sql.transactions import Changes, Dialect
from invokeclone.kit.times import now
from invokeclone.queue import bulk_counts, outbox, statements
from invokeclone.queue.bulk_counts import CountKey
from invokeclone.queue.outbox import UserBatch
from invokeclone.queue.rows import columns, has_status
from invokeclone.queue.schemas import ACTIVE, TERMINAL, Status
from invokeclone.queue.statements import status_values
from invokeclone.tables import queue_counts, session_graphs, session_queue

IDLE: tuple[Status, ...] = ("pending", "waiting")
"""Active statuses that can be ended without notifying a worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFilter:
    """Selects items of a queue by batches, destination and owner; None: any."""

    queue_id: str
    batch_ids: Sequence[str] | None = None
    destination: str | None = None
    owner: str | None = None

    @property
    def values(self) -> dict[str, str]:
        """Parameters for `_conditions`."""
        parameters: dict[str, str | None] = {
            "queue_id": self.queue_id,
            "destination": self.destination,
            "owner": self.owner,
        }
        if self.batch_ids is not None:
            parameters["batch_ids"] = json_list(self.batch_ids)
        return {name: value for name, value in parameters.items() if value is not None}


def _conditions(filter_names: frozenset[str]) -> list[ColumnElement[bool]]:
    """Return the conditions of an `ItemFilter` with these parameters."""
    conditions: list[ColumnElement[bool]] = [statements.IN_QUEUE]
    if "batch_ids" in filter_names:
        conditions.append(columns.batch_id.in_(members("batch_ids")))
    if "destination" in filter_names:
        conditions.append(columns.destination == parameter("destination"))
    if "owner" in filter_names:
        conditions.append(columns.user_id == parameter("owner"))
    return conditions


def _not_in_a_running_call() -> ColumnElement[bool]:
    """Match items outside the call chains of running items: not called by one, not waiting for one, not siblings."""
    running = session_queue.alias("running").c
    busy = select(func.coalesce(running.root_item_id, running.item_id)).where(
        running.queue_id == parameter("queue_id"), has_status(running, "in_progress")
    )
    return func.coalesce(columns.root_item_id, columns.item_id).not_in(busy)


# Canceling


async def cancel_idle(
    connection: Changes, item_filter: ItemFilter, *, spare_running: bool = False
) -> list[tuple[int, str]]:
    """Cancel the selected pending and waiting items; return their ids and owners.

    `spare_running` excludes items in the call chain of a running item.
    """
    canceled: list[tuple[int, str]] = []
    changes: Counter[CountKey] = Counter()
    values, at = item_filter.values, now()
    async with bulk_counts.without_trigger(connection):
        for status in IDLE:
            groups = await _idle(frozenset(values), status, spare_running=spare_running).rows(connection, **values)
            for batch_id, destination, user_id, _number, item_ids in groups:
                ended = await _cancel(connection, status, item_ids, at)
                changes[CountKey(batch_id, destination, user_id, status)] -= len(ended)
                changes[CountKey(batch_id, destination, user_id, "canceled")] += len(ended)
                canceled += zip(ended, itertools.repeat(user_id))
    await bulk_counts.update_counts(connection, item_filter.queue_id, changes)
    await _record_ends(connection, item_filter.queue_id, changes)
    return sorted(canceled)


async def _record_ends(connection: Changes, queue_id: str, keys: Iterable[CountKey]) -> None:
    """Write the webhook events of batches whose last active items were canceled or deleted."""
    batches = (UserBatch(queue_id, key.batch_id, key.user_id) for key in keys if key.status in ACTIVE)
    await outbox.record_batches(connection, batches)


@cache
def _idle(filter_names: frozenset[str], status: Status, *, spare_running: bool) -> PreparedStatement:
    """Select count keys, numbers of items and their ids as a JSON list, which costs less than a row per item."""
    conditions = [*_conditions(filter_names), has_status(columns, status)]
    if spare_running:
        conditions.append(_not_in_a_running_call())
    if status == "waiting":  # rarely any: check the partial index first, before scanning the items of a batch
        conditions.append(
            select(literal_column("1")).select_from(_waiting).where(has_status(_waiting.c, status)).exists()
        )
    kind = (columns.batch_id, columns.destination, columns.user_id)
    numbers = (func.count(), func.json_group_array(columns.item_id))
    return PreparedStatement(select(*kind, *numbers).where(*conditions).group_by(*kind))


async def _cancel(connection: Changes, status: Status, item_ids: str, at: str) -> list[int]:
    """Cancel those of the items that still have a status; return their ids.

    In PostgreSQL a worker may have claimed one of them since they were selected. In SQLite nobody can, and a row per item
    would take as long as the change.
    """
    rows = await _CANCEL[dialect_of(connection), status].rows(connection, item_ids=item_ids, at=at)
    return orjson.loads(item_ids) if dialect_of(connection) == "sqlite" else [row[0] for row in rows]


def _cancel_statement(database: Dialect, status: Status) -> PreparedStatement:
    statement = (
        update(session_queue)
        .where(columns.item_id.in_(integers("item_ids")))
        .values(status_values("canceled", parameter("at")))
    )
    if database == "sqlite":
        return PreparedStatement(statement)
    return PreparedStatement(statement.where(has_status(columns, status)).returning(columns.item_id))


_CANCEL = {
    (database, status): _cancel_statement(database, status) for database in ("sqlite", "postgresql") for status in IDLE
}


_waiting = session_queue.alias("waiting")


JOINED = "joined:"
"""Prefix of the ids of joined workers, which run on while the server restarts."""
NOT_JOINED = func.coalesce(columns.worker_id, "").not_like(f"{JOINED}%")
"""Match items that were last claimed by a worker process of a server."""


async def cancel_interrupted(connection: Changes) -> int:
    """Cancel every running and waiting item, except those of joined workers; return their number."""
    rows = await _CANCEL_INTERRUPTED.rows(connection, at=now())
    await outbox.record_batches(connection, (UserBatch(*row[1:]) for row in rows))
    return len(rows)


_CANCEL_INTERRUPTED = PreparedStatement(
    update(session_queue)
    .where(
        or_(has_status(columns, "in_progress"), has_status(columns, "waiting")),
        NOT_JOINED,
    )
    .values(status_values("canceled", parameter("at")))
    .returning(columns.item_id, columns.queue_id, columns.batch_id, columns.user_id)
)


# Running


async def list_running(
    connection: Changes, item_filter: ItemFilter | None = None, worker_id: str | None = None
) -> list[int]:
    """Return the ids of running items, of the selected ones or of those that `worker_id` claimed."""
    values = item_filter.values if item_filter else {}
    statement = _running(frozenset(values), of_worker=worker_id is not None)
    return sorted(row[0] for row in await statement.rows(connection, **values, worker_id=worker_id))


@cache
def _running(filter_names: frozenset[str], *, of_worker: bool) -> PreparedStatement:
    query = select(columns.item_id).where(
        has_status(columns, "in_progress"), *(_conditions(filter_names) if filter_names else ())
    )
    return PreparedStatement(query.where(columns.worker_id == parameter("worker_id")) if of_worker else query)


# Deleting


async def last_item_id(connection: Changes) -> int:
    """Return the highest id of all items, 0 without any: new items get higher ones."""
    row = await _LAST_ITEM_ID.first(connection)
    return (row[0] or 0) if row else 0


async def delete_items(connection: Changes, queue_id: str, item_ids: Iterable[int]) -> None:
    """Delete items of a queue; unknown ids are ignored."""
    rows = await _DELETE_ITEMS.rows(connection, queue_id=queue_id, item_ids=json_list(item_ids))
    await _decrease_counts(connection, queue_id, rows)


async def delete_many(
    connection: Changes,
    item_filter: ItemFilter,
    statuses: Sequence[Status] | None = None,
    *,
    spare_running: bool = False,
) -> list[tuple[int, str]]:
    """Delete the selected items (with one of `statuses`, if given); return their ids and owners.

    `spare_running` excludes items in the call chain of a running item. With TERMINAL statuses, items whose caller is
    still waiting are kept.
    """
    values = item_filter.values
    of_status = None if statuses is None else tuple(statuses)
    rows = await _delete_many(frozenset(values), of_status, spare_running=spare_running).rows(connection, **values)
    await _decrease_counts(connection, item_filter.queue_id, rows)
    return sorted((row[0], row[4]) for row in rows)


async def empty(connection: Changes, item_filter: ItemFilter, statuses: Sequence[Status] | None = None) -> int:
    """Delete as `delete_many` does and return the number; truncate the tables if they hold no other items."""
    if set(item_filter.values) == {"queue_id"} and statuses in (None, TERMINAL):
        row = await (_ALL_OF_QUEUE if statuses is None else _ALL_ENDED).first(connection, queue_id=item_filter.queue_id)
        if row and row[0]:
            batches = await outbox.list_active(connection, item_filter.queue_id)
            for statement in _EMPTY:
                await statement.rows(connection)
            await outbox.record_batches(connection, batches)
            return int(row[0])
    return len(await delete_many(connection, item_filter, statuses))


async def keep_newest(connection: Changes, queue_id: str, count: int) -> None:
    """Delete the ended items of a queue except the `count` newest."""
    rows = await _DELETE_OLDEST.rows(connection, queue_id=queue_id, kept=count)
    await _decrease_counts(connection, queue_id, rows)


def _deletion() -> Delete:
    """Return a DELETE statement that returns the columns for `_decrease_counts`."""
    counted = (columns.batch_id, columns.destination, columns.user_id, columns.status)
    return delete(session_queue).returning(columns.item_id, columns.graph_id, *counted)  # type: ignore[return-value]


async def _decrease_counts(connection: Changes, queue_id: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Decrease the counts of deleted items, and remove graphs that no other item uses."""
    if not rows:
        return
    numbers = Counter([row[2:] for row in rows])
    changes = {CountKey(*key): -number for key, number in numbers.items()}
    await bulk_counts.update_counts(connection, queue_id, changes)
    await bulk_counts.remove_unused(connection, {key.batch_id for key in changes}, {row[1] for row in rows})
    await _record_ends(connection, queue_id, changes)


@cache
def _delete_many(
    filter_names: frozenset[str], statuses: tuple[Status, ...] | None, *, spare_running: bool
) -> PreparedStatement:
    statement = _deletion().where(*_conditions(filter_names))
    if statuses is not None:
        statement = statement.where(columns.status.in_(statuses))
    if statuses == TERMINAL:
        statement = statement.where(_not_awaited())
    if spare_running:
        statement = statement.where(_not_in_a_running_call())
    return PreparedStatement(statement)


def _not_awaited() -> ColumnElement[bool]:
    """Match items that were not called by an item that is still waiting."""
    caller = session_queue.alias("caller").c
    waits = select(caller.item_id).where(caller.item_id == columns.parent_item_id, caller.status == "waiting")
    return columns.parent_item_id.is_(None) | ~waits.exists()


def _count_unless(*exclusions: ColumnElement[bool]) -> PreparedStatement:
    """Count all items if all are of `queue_id` and none matches an exclusion; each condition uses an index."""
    first, last = [select(bound(columns.queue_id)).scalar_subquery() for bound in (func.min, func.max)]
    alone = [first == parameter("queue_id"), last == parameter("queue_id")]
    none = [~select(columns.item_id).where(exclusion).exists() for exclusion in exclusions]
    return PreparedStatement(
        select(select(func.count()).select_from(session_queue).scalar_subquery()).where(*alone, *none)
    )


def _delete_oldest() -> PreparedStatement:
    """Delete the ended items of a queue except the newest `kept`."""
    finished = (statements.IN_QUEUE, columns.status.in_(TERMINAL))
    ended = func.coalesce(columns.completed_at, columns.updated_at, columns.created_at)
    newest = select(columns.item_id).where(*finished).order_by(ended.desc(), columns.item_id.desc())
    return PreparedStatement(_deletion().where(*finished, columns.item_id.not_in(newest.limit(parameter("kept")))))


_DELETE_OLDEST = _delete_oldest()
_DELETE_ITEMS = PreparedStatement(
    _deletion().where(
        columns.item_id.in_(integers("item_ids")),
        statements.IN_QUEUE,
    )
)
_LAST_ITEM_ID = PreparedStatement(select(func.max(columns.item_id)))
_ALL_OF_QUEUE = _count_unless()
_ALL_ENDED = _count_unless(*(has_status(columns, status) for status in ACTIVE))
_EMPTY = tuple(PreparedStatement(delete(table)) for table in (session_queue, session_graphs, queue_counts))
