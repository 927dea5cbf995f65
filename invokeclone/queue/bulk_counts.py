"""Bulk updates of `queue_counts`: a trigger per row costs as much as changing the rows.

Inside `without_trigger` the trigger is disabled, and the caller updates the counts with `update_counts`. Insertions and
deletions have no triggers: `store`, `calls` and `bulk` update the counts. Rows and counts change in one transaction, so
other connections always see consistent counts.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import delete, insert, literal_column, select

from invokeclone.kit.sql.prepared_statements import (
    DialectSql,
    PreparedStatement,
    dialect_of,
    integers,
    json_list,
    members,
    run,
    run_many,
)
from invokeclone.kit.sql.transactions import Changes
from invokeclone.queue.schemas import Status
from invokeclone.tables import app_state, session_graphs, session_queue

TRIGGER_PAUSED_KEY = "queue_counted_apart"
"""Key in `app_state` that disables the trigger while it exists."""

_DISABLE_TRIGGER = PreparedStatement(
    insert(app_state).values(key=literal_column(f"'{TRIGGER_PAUSED_KEY}'"), value=literal_column("'1'"))
)
_ENABLE_TRIGGER = PreparedStatement(
    delete(app_state).where(app_state.c.key == literal_column(f"'{TRIGGER_PAUSED_KEY}'"))
)
ITEMS_PER_SUM = 50
"""Items after which their counts are summed up in PostgreSQL: each new one adds three rows, each change of status six."""
_SUM_UP_KEYS = """
summed AS (
    DELETE FROM queue_counts AS counts USING (SELECT DISTINCT queue_id, scope, name FROM keys) AS key
    WHERE counts.queue_id = key.queue_id AND counts.scope = key.scope AND counts.name = key.name
    RETURNING counts.queue_id, counts.scope, counts.name, counts.user_id, counts.status, counts.number
)
INSERT INTO queue_counts (queue_id, scope, name, user_id, status, number)
SELECT queue_id, scope, name, user_id, status, sum(number) FROM summed
GROUP BY queue_id, scope, name, user_id, status HAVING sum(number) <> 0
"""
"""SQL of PostgreSQL: replaces the rows of `keys` by their sums."""
_COUNT = DialectSql(
    sqlite="""
    INSERT INTO queue_counts (queue_id, scope, name, user_id, status, number) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (queue_id, scope, name, user_id, status) DO UPDATE SET number = number + excluded.number
    """,
    postgresql="""
    INSERT INTO queue_counts (queue_id, scope, name, user_id, status, number)
    SELECT * FROM unnest(CAST($1 AS text[]), CAST($2 AS text[]), CAST($3 AS text[]), CAST($4 AS text[]), CAST($5 AS text[]),
        CAST($6 AS integer[]))
    """,
)
"""In PostgreSQL the table has several rows of one key, whose sum counts: claims that overlap do not wait for each other."""
_FORGET_EMPTY = DialectSql(
    sqlite="DELETE FROM queue_counts WHERE number = 0",
    postgresql=f"""
    WITH keys AS (
        SELECT queue_id, scope, name FROM queue_counts
        GROUP BY queue_id, scope, name, user_id, status HAVING count(*) > 1 OR sum(number) = 0
    ), {_SUM_UP_KEYS}
    """,  # noqa: S608  (only our own names)
)
"""Deletes counts of 0; in PostgreSQL also replaces the rows of a key by their sum."""
_SUM_UP_RECENT = f"""
WITH recent AS (
    SELECT DISTINCT queue_id, batch_id, coalesce(destination, '') AS destination
    FROM session_queue WHERE item_id > $1 - {ITEMS_PER_SUM} AND item_id <= $1
), keys AS (
    SELECT queue_id, 'queue' AS scope, '' AS name FROM recent
    UNION SELECT queue_id, 'batch', batch_id FROM recent
    UNION SELECT queue_id, 'destination', destination FROM recent
), {_SUM_UP_KEYS}
"""  # noqa: S608  (only our own names)
"""SQL of PostgreSQL: replaces the rows of the counts of the newest items up to $1 by their sums, at a cost that does not
depend on the number of batches."""


class CountKey(NamedTuple):
    """Columns that items are counted by."""

    batch_id: str
    destination: str | None
    user_id: str
    status: Status


@contextlib.asynccontextmanager
async def without_trigger(connection: Changes) -> AsyncIterator[None]:
    """Disable the trigger inside the block; after an error the transaction is rolled back anyway."""
    await _DISABLE_TRIGGER.rows(connection)
    yield
    await _ENABLE_TRIGGER.rows(connection)


async def update_counts(connection: Changes, queue_id: str, changes: Mapping[CountKey, int]) -> None:
    """Add `changes` to the counts of the queue, its batches and its destinations."""
    numbers: Counter[tuple[str, str, str, str]] = Counter()
    for (batch_id, destination, user_id, status), number in changes.items():
        for scope, name in (("queue", ""), ("batch", batch_id), ("destination", destination or "")):
            numbers[scope, name, user_id, status] += number
    await run_many(connection, _COUNT, [(queue_id, *key, number) for key, number in numbers.items() if number])


def insert_pending(queue_id: str, batch_id: str, destination: str, user_id: str, *, number: str) -> str:
    """Return PostgreSQL's INSERT that counts new pending items, from the SQL of their values."""
    keys = (
        "'queue', ''",
        f"'batch', CAST({batch_id} AS text)",
        f"'destination', coalesce(CAST({destination} AS text), '')",
    )
    rows = (f"(CAST({queue_id} AS text), {key}, CAST({user_id} AS text), 'pending', {number})" for key in keys)
    return f"INSERT INTO queue_counts (queue_id, scope, name, user_id, status, number) VALUES {', '.join(rows)}"  # noqa: S608


async def remove_unused(connection: Changes, batch_ids: Iterable[str], graph_ids: Iterable[int | None]) -> None:
    """Delete those of the graphs that no item refers to, and all counts that are 0."""
    graphs, batches = [
        json_list(sorted({unused_id for unused_id in ids if unused_id})) for ids in (graph_ids, batch_ids)
    ]
    await _FORGET_GRAPHS.rows(connection, graphs=graphs, batches=batches)
    await run(connection, _FORGET_EMPTY, ())


async def sum_up(connection: Changes, item_id: int, number: int = 1) -> None:
    """Replace rows of the counts by their sums, after a change of `number` items up to `item_id`.

    That happens for each ITEMS_PER_SUM-th item, in an exclusive transaction; without effect in SQLite.
    """
    nth = item_id - item_id % ITEMS_PER_SUM
    if nth > item_id - number and dialect_of(connection) == "postgresql":
        await run(connection, _SUM_UP_RECENT, (nth,))


_USED = select(session_queue.c.item_id).where(
    session_queue.c.batch_id.in_(members("batches")), session_queue.c.graph_id == session_graphs.c.graph_id
)
_FORGET_GRAPHS = PreparedStatement(
    delete(session_graphs).where(
        session_graphs.c.graph_id.in_(integers("graphs")), ~_USED.correlate(session_graphs).exists()
    )
)
"""All items of a graph belong to one batch, including retries, so only these batches are searched."""
