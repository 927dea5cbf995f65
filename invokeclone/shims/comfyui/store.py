"""SQL for prompts: a user's queue items from ComfyUI's API. An id that was used again refers to its newest item."""

from collections.abc import Sequence
from typing import NamedTuple

import orjson
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.sql.database import Database
from invokeclone.queue.rows import RECORD, Item, columns, to_item
from invokeclone.queue.schemas import ACTIVE, TERMINAL, Status
from invokeclone.queue.service import DEFAULT_QUEUE
from invokeclone.queue.sessions import STORED, readable_session
from invokeclone.shims.comfyui.record import PromptRecord, of_session
from invokeclone.shims.comfyui.translate import NAME
from invokeclone.users.current import User

MAX_ROWS = 1000
"""Maximum number of rows that one request reads."""


def _owner_filter(user_id: str) -> list[ColumnElement[bool]]:
    return [columns.queue_id == DEFAULT_QUEUE, columns.destination == NAME, columns.user_id == user_id]


async def list_items(
    connection: AsyncConnection,
    user: User,
    *,
    statuses: Sequence[Status] | None = None,
    prompt_ids: Sequence[str] | None = None,
    newest: int = MAX_ROWS,
) -> list[Item]:
    """Return the newest of the user's prompts, oldest first."""
    query = select(*RECORD).where(*_owner_filter(user.user_id))
    if statuses is not None:
        query = query.where(columns.status.in_(statuses))
    if prompt_ids is not None:
        query = query.where(columns.batch_id.in_(prompt_ids))
    rows = await connection.execute(query.order_by(columns.item_id.desc()).limit(newest))
    items_by_prompt: dict[str, Item] = {}
    for row in rows:
        item = to_item(tuple(row))
        items_by_prompt.setdefault(item.batch_id, item)
    return list(items_by_prompt.values())[::-1]


async def list_ended(connection: AsyncConnection, user: User, offset: int, count: int) -> list[Item]:
    """Return some of the user's prompts that have ended, oldest first, from the one at `offset`."""
    newest_id = func.max(columns.item_id)
    page = (
        select(newest_id)
        .where(*_owner_filter(user.user_id), columns.status.in_(TERMINAL))
        .group_by(columns.batch_id)
        .order_by(newest_id)
        .offset(offset)
        .limit(count)
    )
    query = select(*RECORD).where(columns.item_id.in_(page)).order_by(columns.item_id)
    return [to_item(tuple(row)) for row in await connection.execute(query)]


async def sessions(connection: AsyncConnection, item_ids: Sequence[int]) -> dict[int, str]:
    """Return the sessions of items as JSON, by item id."""
    query = select(columns.item_id, *STORED).where(columns.item_id.in_(item_ids))
    return {item_id: readable_session(*stored) for item_id, *stored in await connection.execute(query)}


class StoredPrompt(NamedTuple):
    """The workflow of an item, and the ids of the nodes of its graph."""

    prompt_record: PromptRecord
    graph_ids: list[str]


async def prompts(database: Database, item_ids: Sequence[int]) -> dict[int, StoredPrompt]:
    """Return the workflows and node ids of items, by item id; items without a workflow are left out."""
    async with database.read() as connection:
        texts = await sessions(connection, item_ids)

    def read() -> dict[int, StoredPrompt]:
        stored = {}
        for item_id, text in texts.items():
            session = orjson.loads(text)
            if (prompt_record := of_session(session)) is not None:
                stored[item_id] = StoredPrompt(prompt_record, list(session["graph"]["nodes"]))
        return stored

    return await in_thread(read)


async def records(database: Database, item_ids: Sequence[int]) -> dict[int, PromptRecord]:
    """Return the workflows of items, by item id; items without one are left out."""
    stored = await prompts(database, item_ids)
    return {item_id: prompt.prompt_record for item_id, prompt in stored.items()}


async def newest_id(connection: AsyncConnection) -> int:
    """Return the id of the newest item of any user; 0 without one."""
    return int(await connection.scalar(select(func.max(columns.item_id))) or 0)


async def list_newer(connection: AsyncConnection, item_id: int) -> list[Item]:
    """Return the next prompts of all users after an item, oldest first."""
    query = select(*RECORD).where(
        columns.item_id > item_id, columns.queue_id == DEFAULT_QUEUE, columns.destination == NAME
    )
    rows = await connection.execute(query.order_by(columns.item_id).limit(MAX_ROWS))
    return [to_item(tuple(row)) for row in rows]


async def count_active(connection: AsyncConnection, user_id: str) -> int:
    """Return the number of a user's prompts that have not ended."""
    query = select(func.count()).where(*_owner_filter(user_id), columns.status.in_(ACTIVE))
    return int(await connection.scalar(query) or 0)


async def is_taken(connection: AsyncConnection, prompt_id: str) -> bool:
    """Return whether any batch of any user has this id."""
    query = select(columns.item_id).where(columns.batch_id == prompt_id).limit(1)
    return await connection.scalar(query) is not None
