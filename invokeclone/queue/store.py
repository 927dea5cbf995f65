"""The queue's SQL: items in, items out, and every change of status.

A change of status is one statement that bumps `status_sequence`, sets the times that go with it and leaves items alone that
have reached their end. It emits nothing and reads no session.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, delete, func, insert, literal, not_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.errors import NotFound
from invokeclone.kit.times import now
from invokeclone.queue.batches import NewItem
from invokeclone.queue.counts import PAUSED
from invokeclone.queue.rows import (
    CLAIMED,
    ITEMS,
    ITEMS_WITHOUT_NULLS,
    RECORD,
    SUMMARIES,
    ClaimedItem,
    Item,
    claimed,
    columns,
    item_json,
    record,
)
from invokeclone.queue.schemas import ACTIVE, TERMINAL, Status
from invokeclone.tables import app_state, session_queue

IDLE: tuple[Status, ...] = ("pending", "waiting")
"""Statuses that end without a worker having to be told."""


class QueueItemNotFound(NotFound):
    """The queue has no such item."""

    def __init__(self, queue_id: str, item_id: int) -> None:
        super().__init__(f"Queue {queue_id} has no item {item_id}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which items of a queue are meant: those of batches, of a destination, of a user, or all."""

    queue_id: str
    batch_ids: Sequence[str] | None = None
    destination: str | None = None
    owner: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return what a row must meet."""
        found: list[ColumnElement[bool]] = [columns.queue_id == self.queue_id]
        if self.batch_ids is not None:
            found.append(columns.batch_id.in_(_each(self.batch_ids)))
        if self.destination is not None:
            found.append(columns.destination == self.destination)
        if self.owner is not None:
            found.append(columns.user_id == self.owner)
        return found


def _each(values: Sequence[Any]) -> Select[Any]:
    """Select `values`, however many, as rows of one column."""
    listed = func.json_each(orjson.dumps(list(values)).decode()).table_valued("value", name="listed")
    return select(listed.c.value)


# Items in


INSERT = """
    INSERT INTO session_queue (
        session_id, session, field_values, queue_id, batch_id, priority, origin, destination, user_id, workflow,
        created_at, updated_at
    ) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
"""In the driver's own words: a thousand rows cost a third of what they do through SQLAlchemy's parameters."""


async def add(
    connection: AsyncConnection,
    items: Iterable[NewItem],
    *,
    queue_id: str,
    batch_id: str,
    priority: int,
    origin: str | None,
    destination: str | None,
    user_id: str,
    workflow: str | None,
) -> int:
    """Insert new pending items that have all but their texts in common; return how many."""
    at = now()
    shared = (queue_id, batch_id, priority, origin, destination, user_id, workflow, at, at)
    rows = [(item.session_id, item.session, item.field_values, *shared) for item in items]
    if rows:
        await connection.exec_driver_sql(INSERT, rows)
    return len(rows)


async def count_pending(connection: AsyncConnection, queue_id: str) -> int:
    """Return how many items of the queue are pending."""
    query = select(func.count()).where(columns.queue_id == queue_id, columns.status == "pending")
    return (await connection.execute(query)).scalar_one()


async def highest_priority(connection: AsyncConnection, queue_id: str) -> int:
    """Return the highest priority among pending items of the queue, 0 without any."""
    query = select(func.max(columns.priority)).where(columns.queue_id == queue_id, columns.status == "pending")
    return (await connection.execute(query)).scalar_one() or 0


async def list_batch(connection: AsyncConnection, queue_id: str, batch_id: str) -> list[int]:
    """Return the ids of all items with this batch id, the newest first."""
    query = (
        select(columns.item_id)
        .where(columns.batch_id == batch_id, columns.queue_id == queue_id)
        .order_by(columns.item_id.desc())
    )
    return list((await connection.execute(query)).scalars())


async def repeat(connection: AsyncConnection, item_id: int, session_id: str, session: str) -> None:
    """Insert a pending repeat of an item with a new session; a repeat of a repeat points at the first item too."""
    at = literal(now())
    fresh: dict[str, ColumnElement[Any]] = {
        "session_id": literal(session_id),
        "session": literal(session),
        "status": literal("pending"),
        "status_sequence": literal(0),
        "created_at": at,
        "updated_at": at,
        "retried_from_item_id": func.coalesce(columns.retried_from_item_id, columns.item_id),
    }
    kept = ("queue_id", "batch_id", "priority", "origin", "destination", "user_id", "field_values", "workflow")
    values = fresh | {name: columns[name] for name in kept}
    copied = select(*values.values()).where(columns.item_id == item_id)
    await connection.execute(insert(session_queue).from_select(list(values), copied))


# Items out


async def get(connection: AsyncConnection, queue_id: str, item_id: int) -> Item:
    """Return the record of an item. Raise QueueItemNotFound, also when it is another queue's."""
    query = select(*RECORD).where(columns.item_id == item_id, columns.queue_id == queue_id)
    row = (await connection.execute(query)).first()
    if row is None:
        raise QueueItemNotFound(queue_id, item_id)
    return record(row)


async def get_status(connection: AsyncConnection, item_id: int) -> Status | None:
    """Return the status of an item of any queue, None when there is no such item."""
    return (await connection.execute(select(columns.status).where(columns.item_id == item_id))).scalar_one_or_none()


async def list_known(connection: AsyncConnection, item_ids: Sequence[int]) -> list[Item]:
    """Return the records of items of any queue in the order asked for, each once, leaving out unknown ids."""
    rows = (await connection.execute(select(*RECORD).where(columns.item_id.in_(_each(item_ids))))).all()
    found = {item.item_id: item for item in map(record, rows)}
    return [found[item_id] for item_id in dict.fromkeys(item_ids) if item_id in found]


async def get_json(connection: AsyncConnection, queue_id: str, item_id: int, *, nulls: bool = True) -> str:
    """Return an item as JSON text. Raise QueueItemNotFound, also when it is another queue's."""
    query = (ITEMS if nulls else ITEMS_WITHOUT_NULLS).where(columns.item_id == item_id, columns.queue_id == queue_id)
    row = (await connection.execute(query)).first()
    if row is None:
        raise QueueItemNotFound(queue_id, item_id)
    return item_json(row, nulls=nulls)


async def get_graph(connection: AsyncConnection, item_id: int) -> str:
    """Return the JSON text of the graph that an item's session began with."""
    query = select(func.json_extract(columns.session, "$.graph")).where(columns.item_id == item_id)
    return str((await connection.execute(query)).scalar_one())


async def current_json(connection: AsyncConnection, queue_id: str) -> str:
    """Return the JSON text of an item that is being run, or of null."""
    return await _first_json(connection, ITEMS.where(columns.queue_id == queue_id, columns.status == "in_progress"))


async def next_json(connection: AsyncConnection, queue_id: str) -> str:
    """Return the JSON text of the first pending item, or of null."""
    chosen = ITEMS.where(columns.queue_id == queue_id, columns.status == "pending")
    return await _first_json(connection, chosen.order_by(columns.priority.desc(), columns.created_at))


async def _first_json(connection: AsyncConnection, query: Select[Any]) -> str:
    row = (await connection.execute(query.limit(1))).first()
    return "null" if row is None else item_json(row)


async def list_json(connection: AsyncConnection, queue_id: str, destination: str | None = None) -> str:
    """Return all items (with `destination` where given) as a JSON array, those of high priority first."""
    chosen = Chosen(queue_id=queue_id, destination=destination)
    query = ITEMS.where(*chosen.conditions()).order_by(columns.priority.desc(), columns.item_id)
    return _array(item_json(row) for row in (await connection.execute(query)).all())


async def list_ids(connection: AsyncConnection, queue_id: str, *, newest_first: bool = True) -> list[int]:
    """Return the ids of all items by the time they were made; items of one batch are always in ascending order."""
    order = columns.created_at.desc() if newest_first else columns.created_at.asc()
    query = select(columns.item_id).where(columns.queue_id == queue_id).order_by(order, columns.item_id)
    return list((await connection.execute(query)).scalars())


async def get_many_json(connection: AsyncConnection, queue_id: str, item_ids: Sequence[int]) -> str:
    """Return the items asked for as a JSON array in the order asked for, leaving out those the queue does not have."""
    rows = (await connection.execute(_in_order(ITEMS, queue_id, item_ids))).all()
    return _array(item_json(row) for row in rows)


async def get_summaries_json(connection: AsyncConnection, queue_id: str, item_ids: Sequence[int]) -> str:
    """Return summaries of the items asked for, as `get_many_json` does with whole items."""
    return _array((await connection.execute(_in_order(SUMMARIES, queue_id, item_ids))).scalars())


def _in_order(query: Select[Any], queue_id: str, item_ids: Sequence[int]) -> Select[Any]:
    asked = func.json_each(orjson.dumps(list(item_ids)).decode()).table_valued("key", "value", name="asked")
    return query.where(columns.item_id == asked.c.value, columns.queue_id == queue_id).order_by(asked.c.key)


def _array(texts: Iterable[str]) -> str:
    return f"[{','.join(texts)}]"


# Changes of status


def _became(status: Status, at: str) -> dict[str, Any]:
    """Return what every change of status sets; errors are cleared unless the caller sets them."""
    values: dict[str, Any] = {
        "status": status,
        "status_sequence": columns.status_sequence + 1,
        "updated_at": at,
        "error_type": None,
        "error_message": None,
        "error_traceback": None,
    }
    if status == "in_progress":
        values["started_at"] = at
    if status in TERMINAL:
        values["completed_at"] = at
    return values


async def set_status(connection: AsyncConnection, item_id: int, status: Status, **values: Any) -> Item | None:
    """Give an item a status and `values`; None, and nothing done, when it has reached its end or is gone."""
    statement = (
        update(session_queue)
        .where(columns.item_id == item_id, columns.status.in_(ACTIVE))
        .values(_became(status, now()) | values)
        .returning(*RECORD)
    )
    row = (await connection.execute(statement)).first()
    return None if row is None else record(row)


async def save_session(connection: AsyncConnection, item_id: int, session: str) -> None:
    """Keep how far a session has come; nothing happens when the item is gone."""
    statement = update(session_queue).where(columns.item_id == item_id).values(session=session, updated_at=now())
    await connection.execute(statement)


async def claim(connection: AsyncConnection, device: str, *, round_robin: bool = False) -> ClaimedItem | None:
    """Take the next pending item of any queue for `device`; None while there is none, or while the workers are paused.

    One statement: the choice and the change can't be torn apart. With `round_robin` the user whose turn is longest ago
    comes first and priority orders that user's own items; without, priority orders all.
    """
    paused = select(app_state.c.key).where(app_state.c.key == PAUSED).exists()
    chosen = _longest_unserved() if round_robin else _foremost()
    statement = (
        update(session_queue)
        .where(columns.item_id == chosen.scalar_subquery(), not_(paused))
        .values(_became("in_progress", now()) | {"device": device})
        .returning(*CLAIMED)
    )
    row = (await connection.execute(statement)).first()
    return None if row is None else claimed(row)


def _foremost() -> Select[Any]:
    pending = session_queue.alias("candidates").c
    return (
        select(pending.item_id)
        .where(pending.status == "pending")
        .order_by(pending.priority.desc(), pending.item_id)
        .limit(1)
    )


def _longest_unserved() -> Select[Any]:
    pending, served = session_queue.alias("candidates").c, session_queue.alias("served").c
    turn = func.row_number().over(partition_by=pending.user_id, order_by=(pending.priority.desc(), pending.item_id))
    best = select(pending.item_id, pending.user_id, turn.label("turn")).where(pending.status == "pending").subquery()
    last = select(func.max(served.started_at)).where(served.user_id == best.c.user_id).scalar_subquery()
    return select(best.c.item_id).where(best.c.turn == 1).order_by(func.coalesce(last, ""), best.c.item_id).limit(1)


async def cancel_idle(connection: AsyncConnection, chosen: Chosen) -> list[tuple[int, str]]:
    """Cancel the chosen items that no worker runs; return their ids and owners."""
    statement = (
        update(session_queue)
        .where(*chosen.conditions(), columns.status.in_(IDLE))
        .values(_became("canceled", now()))
        .returning(columns.item_id, columns.user_id)
    )
    return [(item_id, user_id) for item_id, user_id in (await connection.execute(statement)).all()]


async def list_running(
    connection: AsyncConnection, chosen: Chosen | None = None, device: str | None = None
) -> list[int]:
    """Return the ids of items being run: the chosen ones, or those on `device`."""
    query = select(columns.item_id).where(columns.status == "in_progress", *(chosen.conditions() if chosen else ()))
    if device is not None:
        query = query.where(columns.device == device)
    return list((await connection.execute(query)).scalars())


# Items away


async def delete_one(connection: AsyncConnection, item_id: int) -> None:
    """Delete an item; nothing happens when it is gone."""
    await connection.execute(delete(session_queue).where(columns.item_id == item_id))


async def delete_many(
    connection: AsyncConnection, chosen: Chosen, statuses: Sequence[Status] | None = None
) -> list[tuple[int, str]]:
    """Delete the chosen items (with one of `statuses` where given); return their ids and owners."""
    statement = delete(session_queue).where(*chosen.conditions()).returning(columns.item_id, columns.user_id)
    if statuses is not None:
        statement = statement.where(columns.status.in_(statuses))
    return [(item_id, user_id) for item_id, user_id in (await connection.execute(statement)).all()]


async def keep_newest(connection: AsyncConnection, queue_id: str, count: int) -> None:
    """Delete the finished items of a queue but the `count` newest."""
    finished = (columns.queue_id == queue_id, columns.status.in_(TERMINAL))
    ended = func.coalesce(columns.completed_at, columns.updated_at, columns.created_at)
    kept = select(columns.item_id).where(*finished).order_by(ended.desc(), columns.item_id.desc()).limit(count)
    await connection.execute(delete(session_queue).where(*finished, columns.item_id.not_in(kept)))


async def cancel_interrupted(connection: AsyncConnection) -> int:
    """Cancel every item that a worker was busy with; return how many."""
    statement = (
        update(session_queue)
        .where(or_(columns.status == "in_progress", columns.status == "waiting"))
        .values(_became("canceled", now()))
    )
    return (await connection.execute(statement)).rowcount


# The pause row


async def pause(connection: AsyncConnection) -> None:
    """Have the workers take no items; one that is being run goes on to its end."""
    await connection.execute(insert(app_state).prefix_with("OR IGNORE").values(key=PAUSED, value="1"))


async def resume(connection: AsyncConnection) -> None:
    """Have the workers take items again."""
    await connection.execute(delete(app_state).where(app_state.c.key == PAUSED))
