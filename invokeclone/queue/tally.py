"""Counting many items at once: a trigger for each of a thousand rows costs as much as the rows themselves.

Within `apart` the trigger of `queue_counts` rests, and whoever changes rows says afterwards what has changed. Insertions and
deletions have no triggers: `store`, `calls` and `bulk` say what has come and gone. All of it is one transaction, so nobody else ever sees a queue that is counted by halves.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import delete, insert, literal_column, select

from invokeclone.kit.sql.prepared import Prepared, json_list, members, run_many
from invokeclone.kit.sql.transactions import Changes
from invokeclone.queue.schemas import Status
from invokeclone.tables import app_state, queue_counts, session_graphs, session_queue

APART = "queue_counted_apart"
"""The key in `app_state` whose presence has the trigger rest."""

_REST = Prepared(insert(app_state).values(key=literal_column(f"'{APART}'"), value=literal_column("'1'")))
_GO_ON = Prepared(delete(app_state).where(app_state.c.key == literal_column(f"'{APART}'")))
_COUNT = """
    INSERT INTO queue_counts (queue_id, scope, name, user_id, status, number) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (queue_id, scope, name, user_id, status) DO UPDATE SET number = number + excluded.number
"""
_FORGET_EMPTY = Prepared(delete(queue_counts).where(queue_counts.c.number == literal_column("0")))


class Counted(NamedTuple):
    """What an item is counted by."""

    batch_id: str
    destination: str | None
    user_id: str
    status: Status


@contextlib.asynccontextmanager
async def apart(connection: Changes) -> AsyncIterator[None]:
    """Have the trigger rest; after an error the transaction is rolled back anyway."""
    await _REST.rows(connection)
    yield
    await _GO_ON.rows(connection)


async def change(connection: Changes, queue_id: str, changes: Mapping[Counted, int]) -> None:
    """Count so many more (or fewer) items of each kind."""
    numbers: Counter[tuple[str, str, str, str]] = Counter()
    for (batch_id, destination, user_id, status), number in changes.items():
        for scope, name in (("queue", ""), ("batch", batch_id), ("destination", destination or "")):
            numbers[scope, name, user_id, status] += number
    await run_many(connection, _COUNT, [(queue_id, *key, number) for key, number in numbers.items() if number])


async def forget(connection: Changes, batch_ids: Iterable[str], graph_ids: Iterable[int | None]) -> None:
    """Remove the graphs that no item refers to any more, and counts of batches and destinations that are gone."""
    graphs, batches = [json_list(sorted({one for one in ids if one})) for ids in (graph_ids, batch_ids)]
    await _FORGET_GRAPHS.rows(connection, graphs=graphs, batches=batches)
    await _FORGET_EMPTY.rows(connection)


_USED = select(session_queue.c.item_id).where(
    session_queue.c.batch_id.in_(members("batches")), session_queue.c.graph_id == session_graphs.c.graph_id
)
_FORGET_GRAPHS = Prepared(
    delete(session_graphs).where(
        session_graphs.c.graph_id.in_(members("graphs")), ~_USED.correlate(session_graphs).exists()
    )
)
"""Items of one graph are of one batch, repeats too."""
