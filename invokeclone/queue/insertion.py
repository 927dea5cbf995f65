"""Insertion of new items: the graph of a batch once, the items with their values, and their counts.

In SQLite these are several statements in one trip to the database's thread. In PostgreSQL, where each statement is a trip
to the server, it is one statement for up to ITEMS_PER_STATEMENT items.
"""

import itertools
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import func, insert, select

from invokeclone.kit.sql.prepared_statements import PreparedStatement, dialect_of, parameter, run, run_many
from invokeclone.kit.sql.transactions import Changes
from invokeclone.kit.times import now
from invokeclone.queue import bulk_counts
from invokeclone.queue.batches import NewItem
from invokeclone.queue.bulk_counts import CountKey
from invokeclone.tables import session_graphs

ITEMS_PER_INSERT = 50
"""Items per INSERT statement of SQLite."""
ITEMS_PER_STATEMENT = 1000
"""Items per statement of PostgreSQL; the event loop generates their values at once."""


class BatchColumns(NamedTuple):
    """What the items of a batch share."""

    queue_id: str
    batch_id: str
    priority: int
    origin: str | None
    destination: str | None
    user_id: str
    workflow: str | None


async def add(connection: Changes, items: Iterable[NewItem], batch: BatchColumns) -> list[int]:
    """Insert new pending items of one graph with different values; return their ids in order.

    In SQLite they are generated in the database thread, so that the event loop is not blocked and not all texts are in
    memory.
    """
    is_sqlite = dialect_of(connection) == "sqlite"
    chunks = _chunks(items, ITEMS_PER_INSERT if is_sqlite else ITEMS_PER_STATEMENT)
    first = next(chunks, None)
    if first is None:
        return []
    insert_chunks = _add_in_sqlite if is_sqlite else _add_in_postgres
    added, last = await insert_chunks(connection, itertools.chain([first], chunks), first[0].template, batch)
    return list(range(last - added + 1, last + 1))  # ids are consecutive: no other transaction inserts meanwhile


def _chunks(items: Iterable[NewItem], length: int) -> Iterator[list[NewItem]]:
    remaining = iter(items)
    while chunk := list(itertools.islice(remaining, length)):
        yield chunk


_ITEM_COLUMNS = ("session_id", "graph_values", "field_values")
_COLUMNS = ", ".join((*BatchColumns._fields, "created_at", "updated_at", "graph_id", "session", *_ITEM_COLUMNS))


# SQLite


async def _add_in_sqlite(
    connection: Changes, chunks: Iterator[list[NewItem]], template: str, batch: BatchColumns
) -> tuple[int, int]:
    """Insert the items and add them to the counts; return their number and the last id."""
    at, added = now(), 0
    graph = await _ADD_GRAPH.first(connection, template=template)
    assert graph
    shared = (*batch, at, at, graph[0])
    rest: list[NewItem] = []

    def full_chunks() -> Iterator[tuple[Any, ...]]:
        nonlocal added, rest
        for chunk in chunks:
            if len(chunk) < ITEMS_PER_INSERT:
                rest = chunk
                return
            added += len(chunk)
            yield (*shared, *_values(chunk))

    await run_many(connection, _insert(ITEMS_PER_INSERT), full_chunks())
    if rest:
        added += len(rest)
        await run(connection, _insert(len(rest)), (*shared, *_values(rest)))
    ((last,),) = await _LAST_ID.rows(connection)
    kind = CountKey(batch.batch_id, batch.destination, batch.user_id, "pending")
    await bulk_counts.update_counts(connection, batch.queue_id, {kind: added})
    return added, last


def _values(items: Iterable[NewItem]) -> Iterator[str | None]:
    return itertools.chain.from_iterable(item.row for item in items)


@cache
def _insert(count: int) -> str:
    """Return an INSERT of `count` items: first the parameters that they share, then three values per item.

    Plain SQL with many rows: 1000 rows cost a fifth of what they do through SQLAlchemy one by one.
    """
    shared = len(BatchColumns._fields) + 3
    first = ", ".join(f"?{number}" for number in range(1, shared + 1))
    numbers = itertools.count(shared + 1)
    rows = (f"({first}, '', ?{next(numbers)}, ?{next(numbers)}, ?{next(numbers)})" for _ in range(count))
    return f"INSERT INTO session_queue ({_COLUMNS}) VALUES {', '.join(rows)}"  # noqa: S608  (only our own names)


_ADD_GRAPH = PreparedStatement(
    insert(session_graphs).values(template=parameter("template")).returning(session_graphs.c.graph_id)
)
_LAST_ID = PreparedStatement(select(func.last_insert_rowid()))


# PostgreSQL


async def _add_in_postgres(
    connection: Changes, chunks: Iterator[list[NewItem]], template: str, batch: BatchColumns
) -> tuple[int, int]:
    """Insert the items and add them to the counts; return their number and the last id."""
    at, added, last, graph_id = now(), 0, 0, None
    for chunk in chunks:
        columns = zip(*(item.row for item in chunk), strict=True)
        new_template = template if graph_id is None else None
        values = (*batch, at, graph_id, new_template, len(chunk), *columns)
        ((last, graph_id),) = await run(connection, _INSERT_CHUNK, values)
        added += len(chunk)
    await bulk_counts.sum_up(connection, last, added)
    return added, last


_COUNTED = bulk_counts.insert_pending("$1", "$2", "$5", "$6", number="CAST($11 AS integer)")
_INSERT_CHUNK = f"""
WITH graph AS (
    INSERT INTO session_graphs (template) SELECT CAST($10 AS text) WHERE $10 IS NOT NULL RETURNING graph_id
), counted AS ({_COUNTED}), added AS (
    INSERT INTO session_queue ({_COLUMNS})
    SELECT $1, $2, CAST($3 AS integer), CAST($4 AS text), $5, $6, CAST($7 AS text), CAST($8 AS text), $8,
        coalesce(CAST($9 AS bigint), (SELECT graph_id FROM graph)), '', item.*
    FROM unnest(CAST($12 AS text[]), CAST($13 AS text[]), CAST($14 AS text[])) AS item
    RETURNING item_id, graph_id
)
SELECT max(item_id), max(graph_id) FROM added
"""  # noqa: S608  (only our own names)
"""SQL of PostgreSQL: inserts items of the graph with the id $9 or, if it is null, of a new graph."""
