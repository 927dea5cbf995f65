"""Numbers of items by status: of a queue, of a batch, of a destination.

Each is one statement on `queue_counts`, which is maintained on changes of items: its cost does not depend on the length
of the queue.
"""

from typing import Any

import orjson
from sqlalchemy import ColumnElement, ScalarSelect, case, func, literal_column, or_, select

from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, parameter
from invokeclone.queue.rows import Item, has_status
from invokeclone.queue.schemas import (
    STATUSES,
    BatchStatus,
    SessionProcessorStatus,
    SessionQueueAndProcessorStatus,
    SessionQueueCountsByDestination,
    SessionQueueStatus,
    Status,
)
from invokeclone.tables import app_state, queue_counts, session_queue

columns = session_queue.c
PAUSED = "paused"
"""Key in `app_state` that pauses the workers while it exists."""

IN_QUEUE = columns.queue_id == parameter("queue_id")
IN_BATCH = (columns.batch_id == parameter("batch_id"), IN_QUEUE)
OF_OWNER = or_(parameter("owner").is_(None), columns.user_id == parameter("owner"))

_counts = queue_counts.c
_OF_OWNER = or_(parameter("owner").is_(None), _counts.user_id == parameter("owner"))


def _counts_of(scope: str) -> tuple[ColumnElement[bool], ...]:
    """Match the counts of the queue, of `batch_id` or of `destination` in it."""
    name = literal_column("''") if scope == "queue" else parameter("batch_id" if scope == "batch" else scope)
    return (
        _counts.queue_id == parameter("queue_id"),
        _counts.scope == literal_column(f"'{scope}'"),
        _counts.name == name,
    )


def number_in_queue(status: Status) -> ScalarSelect[Any]:
    """Select the number of items of a queue in a status."""
    number = func.coalesce(func.sum(_counts.number), 0)
    return select(number).where(*_counts_of("queue"), _counts.status == literal_column(f"'{status}'")).scalar_subquery()


def _status_counts(scope: str, *conditions: ColumnElement[bool]) -> ScalarSelect[Any]:
    """Select [[status, number of items, number of the user's items], …] as JSON text."""
    user_count = func.sum(case((_counts.user_id == parameter("user_id"), _counts.number), else_=literal_column("0")))
    groups = select(_counts.status, func.sum(_counts.number).label("all"), user_count.label("mine"))
    grouped = groups.where(*_counts_of(scope), *conditions).group_by(_counts.status).subquery()
    row = func.json_array(grouped.c.status, grouped.c.all, grouped.c.mine)
    return select(func.json_group_array(func.json(row))).select_from(grouped).scalar_subquery()


def _first_row_json(*selected: ColumnElement[Any], conditions: tuple[ColumnElement[bool], ...]) -> ScalarSelect[Any]:
    """Select columns of any one matching row as a JSON array."""
    return select(func.json_array(*selected)).where(*conditions).limit(1).scalar_subquery()


_RUNNING = (IN_QUEUE, has_status(columns, "in_progress"))
_IDS = (columns.item_id, columns.batch_id, columns.session_id)
_CURRENT = _first_row_json(*_IDS, conditions=(*_RUNNING, OF_OWNER))
_USER_CURRENT = _first_row_json(*_IDS, conditions=(*_RUNNING, columns.user_id == parameter("user_id")))
_LABELS = _first_row_json(columns.origin, columns.destination, conditions=(*IN_BATCH, OF_OWNER))
_PROCESSOR = (
    select(app_state.c.key).where(app_state.c.key == PAUSED).exists(),
    select(columns.item_id).where(has_status(columns, "in_progress")).exists(),
)

QUEUE = PreparedStatement(select(_status_counts("queue"), _CURRENT, *_PROCESSOR))
BATCH = PreparedStatement(select(_status_counts("batch", _OF_OWNER), _LABELS))
ITEM = PreparedStatement(select(_status_counts("batch"), _LABELS, _status_counts("queue"), _USER_CURRENT))
DESTINATION = PreparedStatement(select(_status_counts("destination", _OF_OWNER)))
PROCESSOR = PreparedStatement(select(*_PROCESSOR))


async def of_queue(
    source: Source, queue_id: str, user_id: str | None = None, owner: str | None = None
) -> SessionQueueAndProcessorStatus:
    """Return the status of a queue and of the workers; with `user_id`, also the numbers of that user's items.

    With `owner`, the current item is reported only if it is that user's.
    """
    row = await QUEUE.first(source, queue_id=queue_id, user_id=user_id, owner=owner)
    assert row
    return SessionQueueAndProcessorStatus(
        queue=_queue_status(queue_id, row[0], row[1], with_user=user_id is not None),
        processor=SessionProcessorStatus(is_started=not row[2], is_processing=bool(row[3])),
    )


async def of_item(source: Source, item: Item) -> tuple[BatchStatus, SessionQueueStatus]:
    """Return the statuses of an item's batch and queue, with the counts and the running item of its owner."""
    row = await ITEM.first(source, queue_id=item.queue_id, batch_id=item.batch_id, user_id=item.user_id)
    assert row
    return _batch_status(item.queue_id, item.batch_id, row[0], row[1]), _queue_status(item.queue_id, row[2], row[3])


async def of_batch(source: Source, queue_id: str, batch_id: str, owner: str | None = None) -> BatchStatus:
    """Return the status of a batch (with `owner`, of that user's items only); all 0 for an unknown batch."""
    row = await BATCH.first(source, queue_id=queue_id, batch_id=batch_id, owner=owner, user_id=None)
    assert row
    return _batch_status(queue_id, batch_id, row[0], row[1])


async def of_destination(
    source: Source, queue_id: str, destination: str, owner: str | None = None
) -> SessionQueueCountsByDestination:
    """Return the numbers of items with a destination by status (with `owner`, of that user's items only)."""
    row = await DESTINATION.first(source, queue_id=queue_id, destination=destination, owner=owner, user_id=None)
    assert row
    return SessionQueueCountsByDestination(queue_id=queue_id, destination=destination, **_totals(row[0])[0])


async def of_processor(source: Source) -> SessionProcessorStatus:
    """Return whether the workers take items, and whether any item is running."""
    row = await PROCESSOR.first(source)
    assert row
    return SessionProcessorStatus(is_started=not row[0], is_processing=bool(row[1]))


def _queue_status(
    queue_id: str, counts_json: str, current: str | None, *, with_user: bool = True
) -> SessionQueueStatus:
    totals, user_totals = _totals(counts_json)
    item_id, batch_id, session_id = orjson.loads(current) if current else (None, None, None)
    return SessionQueueStatus(
        queue_id=queue_id,
        item_id=item_id,
        batch_id=batch_id,
        session_id=session_id,
        **totals,
        user_pending=user_totals.get("pending", 0) if with_user else None,
        user_in_progress=user_totals.get("in_progress", 0) if with_user else None,
    )


def _batch_status(queue_id: str, batch_id: str, counts_json: str, labels: str | None) -> BatchStatus:
    origin, destination = orjson.loads(labels) if labels else (None, None)
    totals, _ = _totals(counts_json)
    return BatchStatus(queue_id=queue_id, batch_id=batch_id, origin=origin, destination=destination, **totals)


def _totals(counts_json: str) -> tuple[dict[str, int], dict[str, int]]:
    """Return the numbers of items by status, with `total`, and those of the user's own items."""
    rows = orjson.loads(counts_json)
    totals = dict.fromkeys(STATUSES, 0) | {status: count for status, count, _ in rows}
    return totals | {"total": sum(totals.values())}, {status: user_count or 0 for status, _, user_count in rows}
