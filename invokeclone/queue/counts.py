"""How many items are in each status: of a queue, of a batch, of a destination. Each count is served by one index."""

from typing import Any

from sqlalchemy import ColumnElement, Integer, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.queue.schemas import (
    BatchStatus,
    Counts,
    SessionProcessorStatus,
    SessionQueueCountsByDestination,
    SessionQueueStatus,
)
from invokeclone.tables import app_state, session_queue

columns = session_queue.c
PAUSED = "paused"
"""The key in `app_state` whose presence says that workers take no items."""


async def of_queue(connection: AsyncConnection, queue_id: str, user_id: str | None = None) -> SessionQueueStatus:
    """Return the state of a queue; with `user_id`, also how many of its waiting and running items are that user's."""
    mine = func.sum(columns.user_id == user_id, type_=Integer)
    query = select(columns.status, func.count(), mine).where(columns.queue_id == queue_id).group_by(columns.status)
    rows = (await connection.execute(query)).all()
    by_status = {status: (count, own) for status, count, own in rows}
    current = await _current(connection, queue_id) if "in_progress" in by_status else (None, None, None)
    return SessionQueueStatus(
        queue_id=queue_id,
        item_id=current[0],
        batch_id=current[1],
        session_id=current[2],
        **_totals({status: count for status, (count, _) in by_status.items()}),
        user_pending=None if user_id is None else by_status.get("pending", (0, 0))[1],
        user_in_progress=None if user_id is None else by_status.get("in_progress", (0, 0))[1],
    )


async def _current(connection: AsyncConnection, queue_id: str) -> tuple[int | None, str | None, str | None]:
    query = (
        select(columns.item_id, columns.batch_id, columns.session_id)
        .where(columns.queue_id == queue_id, columns.status == "in_progress")
        .limit(1)
    )
    row = (await connection.execute(query)).first()
    return (row.item_id, row.batch_id, row.session_id) if row else (None, None, None)


async def of_batch(connection: AsyncConnection, queue_id: str, batch_id: str, owner: str | None = None) -> BatchStatus:
    """Return the state of a batch (only of `owner`'s items where given); zeros for a batch that nobody knows."""
    chosen = (columns.batch_id == batch_id, columns.queue_id == queue_id, *_owned_by(owner))
    by_status = await _count(connection, *chosen)
    query = select(columns.origin, columns.destination).where(*chosen).limit(1)
    words = (await connection.execute(query)).first() if by_status else None
    origin, destination = words or (None, None)
    return BatchStatus(
        queue_id=queue_id, batch_id=batch_id, origin=origin, destination=destination, **_totals(by_status)
    )


async def of_destination(
    connection: AsyncConnection, queue_id: str, destination: str, owner: str | None = None
) -> SessionQueueCountsByDestination:
    """Return how many items with a destination are in each status (only `owner`'s where given)."""
    by_status = await _count(
        connection, columns.queue_id == queue_id, columns.destination == destination, *_owned_by(owner)
    )
    return SessionQueueCountsByDestination(queue_id=queue_id, destination=destination, **_totals(by_status))


async def of_processor(connection: AsyncConnection) -> SessionProcessorStatus:
    """Return whether workers take items, and whether any item is being run."""
    paused = select(app_state.c.key).where(app_state.c.key == PAUSED).exists()
    running = select(columns.item_id).where(columns.status == "in_progress").exists()
    row = (await connection.execute(select(paused, running))).one()
    return SessionProcessorStatus(is_started=not row[0], is_processing=bool(row[1]))


def _owned_by(owner: str | None) -> tuple[ColumnElement[bool], ...]:
    return () if owner is None else (columns.user_id == owner,)


async def _count(connection: AsyncConnection, *chosen: ColumnElement[bool]) -> dict[str, int]:
    query = select(columns.status, func.count()).where(*chosen).group_by(columns.status)
    return {str(row[0]): int(row[1]) for row in (await connection.execute(query)).all()}


def _totals(by_status: dict[str, int]) -> dict[str, Any]:
    return Counts(**by_status, total=sum(by_status.values())).model_dump()
