"""Writes the webhook events of items and batches, in the transaction in which they end.

A batch is done when none of its user's items is pending, running or waiting any more; after a retry it is done again.
Items of deleted batches are not counted.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson
from sqlalchemy import func, literal_column, select

from invokeclone.kit.sql.prepared_statements import PreparedStatement, Source, parameter
from invokeclone.kit.sql.transactions import Changes
from invokeclone.queue.rows import Item, columns
from invokeclone.queue.schemas import ACTIVE, TERMINAL
from invokeclone.queue.sessions import STORED, readable_session
from invokeclone.tables import queue_counts
from invokeclone.webhooks import outbox
from invokeclone.webhooks.outbox import Subscriptions

MAX_NAMES = 1_000
"""Maximum number of image names in an event."""
LONGEST_MESSAGE = 2_000

_counts = queue_counts.c
_OF_BATCHES = (_counts.queue_id == parameter("queue_id"), _counts.scope == literal_column("'batch'"))
_COUNTS = PreparedStatement(
    select(_counts.status, func.sum(_counts.number))
    .where(*_OF_BATCHES, _counts.name == parameter("batch_id"), _counts.user_id == parameter("user_id"))
    .group_by(_counts.status)
)
_ACTIVE = PreparedStatement(
    select(_counts.name, _counts.user_id)
    .where(*_OF_BATCHES, _counts.status.in_(ACTIVE))
    .group_by(_counts.name, _counts.user_id)
    .having(func.sum(_counts.number) > literal_column("0"))
)
_SESSION = PreparedStatement(select(*STORED).where(columns.item_id == parameter("item_id")))
_LABELS = PreparedStatement(
    select(columns.origin, columns.destination)
    .where(
        columns.batch_id == parameter("batch_id"),
        columns.queue_id == parameter("queue_id"),
        columns.user_id == parameter("user_id"),
    )
    .limit(1)
)


class UserBatch(NamedTuple):
    """The items of one user in a batch; clients choose the ids of batches."""

    queue_id: str
    batch_id: str
    user_id: str


async def record_item(connection: Changes, item: Item, subscriptions: Subscriptions) -> None:
    """Write the events of an item that has just ended, for its owner's webhooks."""
    if item.status == "completed" and (webhook_ids := subscriptions.get("item_completed")):
        data = _describe(item) | {"image_names": (await _image_names(connection, item.item_id))[:MAX_NAMES]}
        await outbox.add(connection, webhook_ids, "item_completed", data)
    if item.status == "failed" and (webhook_ids := subscriptions.get("item_failed")):
        message = (item.error_message or "")[:LONGEST_MESSAGE]
        data = _describe(item) | {"error_type": item.error_type, "error_message": message}
        await outbox.add(connection, webhook_ids, "item_failed", data)
    await _record_batch(connection, UserBatch(item.queue_id, item.batch_id, item.user_id), subscriptions)


async def record_batches(connection: Changes, batches: Iterable[UserBatch]) -> None:
    """Write the events of those of the batches that are done, after active items of theirs were canceled or deleted."""
    unique = set(batches)
    if not unique or not await outbox.has_any(connection):
        return
    for batch in sorted(unique):
        await _record_batch(connection, batch, await outbox.list_subscriptions(connection, batch.user_id))


async def list_active(connection: Changes, queue_id: str) -> list[UserBatch]:
    """Return the batches of a queue with active items; none if there are no webhooks."""
    if not await outbox.has_any(connection):
        return []
    rows = await _ACTIVE.rows(connection, queue_id=queue_id)
    return [UserBatch(queue_id, batch_id, user_id) for batch_id, user_id in rows]


async def _record_batch(connection: Changes, batch: UserBatch, subscriptions: Subscriptions) -> None:
    webhook_ids = subscriptions.get("batch_done")
    if not webhook_ids:
        return
    values: dict[str, str] = batch._asdict()
    numbers: dict[str, int] = {status: int(number) for status, number in await _COUNTS.rows(connection, **values)}
    if any(numbers.get(status) for status in ACTIVE):
        return
    counts: dict[str, int] = {status: numbers.get(status, 0) for status in TERMINAL}
    origin, destination = await _LABELS.first(connection, **values) or (None, None)
    data = {**values, "origin": origin, "destination": destination, **counts, "total": sum(counts.values())}
    await outbox.add(connection, webhook_ids, "batch_done", data)


_DESCRIBED = (
    *("queue_id", "batch_id", "item_id", "session_id", "user_id", "origin", "destination", "status", "device"),
    *("created_at", "started_at", "completed_at"),
)


def _describe(item: Item) -> dict[str, Any]:
    return {name: getattr(item, name) for name in _DESCRIBED}


async def _image_names(source: Source, item_id: int) -> list[str]:
    row = await _SESSION.first(source, item_id=item_id)
    names = image_names_by_node(readable_session(*row)) if row else {}
    return [name for node_names in names.values() for name in node_names]


def image_names_by_node(text: str) -> dict[str, list[str]]:
    """Return the names of a session's images that are not intermediate, by node id in the graph."""
    names_by_node: dict[str, list[str]] = {}
    session = orjson.loads(text)
    for prepared_id, result in session["results"].items():
        source_id = session["prepared_source_mapping"][prepared_id]
        image = result.get("image")
        node = session["graph"]["nodes"].get(source_id, {})
        if isinstance(image, dict) and "image_name" in image and not node.get("is_intermediate", True):
            names_by_node.setdefault(source_id, []).append(image["image_name"])
    return names_by_node
