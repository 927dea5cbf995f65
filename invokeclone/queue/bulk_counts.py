"""Counting many items at once: a trigger for each of a thousand rows costs as much as the rows themselves.

Within `apart` the trigger of `queue_counts` rests, and whoever changes rows says afterwards what has changed. Insertions and
deletions have no triggers: `store`, `calls` and `bulk` say what has come and gone. All of it is one transaction, so nobody else ever sees a queue that is counted by halves.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import delete, insert, literal_column, select

from invokeclone.kit.sql.prepared_statements import PreparedStatement, json_list, members, run_many
from invokeclone.kit.sql.transactions import Changes
from invokeclone.queue.schemas import Status
from invokeclone.tables import app_state, queue_counts, session_graphs, session_queue

TRIGGER_PAUSED_KEY = "queue_counted_apart"
"""The key in `app_state` whose presence has the trigger rest."""

_DISABLE_TRIGGER = PreparedStatement(
    insert(app_state).values(key=literal_column(f"'{TRIGGER_PAUSED_KEY}'"), value=literal_column("'1'"))
)
_ENABLE_TRIGGER = PreparedStatement(
    delete(app_state).where(app_state.c.key == literal_column(f"'{TRIGGER_PAUSED_KEY}'"))
)
_COUNT = """
    INSERT INTO queue_counts (queue_id, scope, name, user_id, status, number) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (queue_id, scope, name, user_id, status) DO UPDATE SET number = number + excluded.number
"""
_FORGET_EMPTY = PreparedStatement(delete(queue_counts).where(queue_counts.c.number == literal_column("0")))


class CountKey(NamedTuple):
    """What an item is counted by."""

    batch_id: str
    destination: str | None
    user_id: str
    status: Status


@contextlib.asynccontextmanager
async def without_trigger(connection: Changes) -> AsyncIterator[None]:
    """Have the trigger rest; after an error the transaction is rolled back anyway."""
    await _DISABLE_TRIGGER.rows(connection)
    yield
    await _ENABLE_TRIGGER.rows(connection)


async def update_counts(connection: Changes, queue_id: str, changes: Mapping[CountKey, int]) -> None:
    """Count so many more (or fewer) items of each kind."""
    numbers: Counter[tuple[str, str, str, str]] = Counter()
    for (batch_id, destination, user_id, status), number in changes.items():
        for scope, name in (("queue", ""), ("batch", batch_id), ("destination", destination or "")):
            numbers[scope, name, user_id, status] += number
    await run_many(connection, _COUNT, [(queue_id, *key, number) for key, number in numbers.items() if number])


async def remove_unused(connection: Changes, batch_ids: Iterable[str], graph_ids: Iterable[int | None]) -> None:
    """Remove the graphs that no item refers to any more, and counts of batches and destinations that are gone."""
    graphs, batches = [
        json_list(sorted({unused_id for unused_id in ids if unused_id})) for ids in (graph_ids, batch_ids)
    ]
    await _FORGET_GRAPHS.rows(connection, graphs=graphs, batches=batches)
    await _FORGET_EMPTY.rows(connection)


_USED = select(session_queue.c.item_id).where(
    session_queue.c.batch_id.in_(members("batches")), session_queue.c.graph_id == session_graphs.c.graph_id
)
_FORGET_GRAPHS = PreparedStatement(
    delete(session_graphs).where(
        session_graphs.c.graph_id.in_(members("graphs")), ~_USED.correlate(session_graphs).exists()
    )
)
"""Items of one graph are of one batch, repeats too."""
