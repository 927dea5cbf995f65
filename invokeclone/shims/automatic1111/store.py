"""SQL for running generations."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.queue.rows import columns
from invokeclone.queue.schemas import ACTIVE
from invokeclone.queue.service import DEFAULT_QUEUE

ORIGIN = "a1111"
"""The origin of batches from this API."""


async def oldest_batch(connection: AsyncConnection, user_id: str) -> str | None:
    """Return the id of the user's oldest batch from A1111's API that has not ended."""
    query = select(columns.batch_id).where(
        columns.queue_id == DEFAULT_QUEUE,
        columns.user_id == user_id,
        columns.origin == ORIGIN,
        columns.status.in_(ACTIVE),
    )
    return await connection.scalar(query.order_by(columns.item_id).limit(1))
