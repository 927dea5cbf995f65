"""SQL for running generations."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.queue.rows import RECORD, Item, columns, to_item
from invokeclone.queue.schemas import ACTIVE
from invokeclone.queue.service import DEFAULT_QUEUE

ORIGIN = "a1111"
"""The origin of batches from this API."""


async def oldest_batch(connection: AsyncConnection, user_id: str, limit: int) -> list[Item]:
    """Return the items of the user's oldest batch from A1111's API that has not ended.

    There are none if it has more than `limit`: then another API has enqueued it with this origin.
    """
    query = select(columns.batch_id).where(
        columns.queue_id == DEFAULT_QUEUE,
        columns.user_id == user_id,
        columns.origin == ORIGIN,
        columns.status.in_(ACTIVE),
    )
    batch_id = await connection.scalar(query.order_by(columns.item_id).limit(1))
    if batch_id is None:
        return []
    in_batch = (columns.queue_id == DEFAULT_QUEUE) & (columns.batch_id == batch_id)
    of_user = in_batch & (columns.user_id == user_id)  # others may have items with the same batch id
    rows = await connection.execute(select(*RECORD).where(of_user).order_by(columns.item_id).limit(limit + 1))
    items = [to_item(tuple(row)) for row in rows]
    return items if len(items) <= limit else []
