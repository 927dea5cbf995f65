"""What `invokeclone db copy` copies, and the form of sessions that every database can store."""

from typing import Any

from sqlalchemy import Table, delete, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.sql.copy_database import PROGRESS_KEY, CopyPlan
from invokeclone.queue.bulk_counts import TRIGGER_PAUSED_KEY
from invokeclone.queue.sessions import state_text
from invokeclone.tables import app_state, day_counts, image_counts, metadata, queue_counts, session_queue

NOT_COPIED = frozenset({PROGRESS_KEY, TRIGGER_PAUSED_KEY, "images_text_until"})
"""Keys of `app_state` that describe one database."""


def convert(table: Table, row: dict[str, Any]) -> dict[str, Any] | None:
    """Return a row as it is copied: sessions as text, without the state that is one database's own."""
    if table is app_state and row["key"] in NOT_COPIED:
        return None
    return _convert_item(row) if table is session_queue else row


def _convert_item(row: dict[str, Any]) -> dict[str, Any]:
    """Return an item as a restart leaves it: what ran is canceled, and what was to be resumed may run on any device."""
    if isinstance(row["session"], bytes):
        row["session"] = state_text(row["session"])
    if row["status"] in ("in_progress", "waiting"):
        row |= {"status": "canceled", "completed_at": row["completed_at"] or row["updated_at"]}
    elif row["status"] == "pending":
        row |= {"device": None}
    return row | {"lease_expires_at": None}


async def count_items(connection: AsyncConnection) -> None:
    """Write the counts of the queue, which have no triggers for insertions."""
    await connection.execute(delete(queue_counts))
    columns = session_queue.c
    scopes = (
        ("queue", literal("")),
        ("batch", columns.batch_id),
        ("destination", func.coalesce(columns.destination, "")),
    )
    for scope, name in scopes:
        keys = (columns.queue_id, literal(scope).label("scope"), name.label("name"), columns.user_id, columns.status)
        grouped = select(*keys, func.count()).group_by(columns.queue_id, columns.user_id, columns.status, name)
        await connection.execute(
            insert(queue_counts).from_select(["queue_id", "scope", "name", "user_id", "status", "number"], grouped)
        )


PLAN = CopyPlan(
    metadata=metadata,
    state=app_state,
    derived=frozenset(table.name for table in (image_counts, day_counts, queue_counts)),
    convert=convert,
    finish=count_items,
)
