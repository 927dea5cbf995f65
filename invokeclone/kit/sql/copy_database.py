"""Copying of all rows from one database to another, of either kind: resumable, and verified at the end.

Rows are copied in order of their keys, a part per transaction, which also records how far the copy has come. A copy that
was interrupted goes on there. At the end the rows of both sides are compared.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Column, MetaData, Table, delete, func, literal, literal_column, select, text, tuple_
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.errors import Conflict
from invokeclone.kit.sql.database import Database

ROWS_PER_PART = 500
PROGRESS_KEY = "copy_progress"
"""Key in the state table of the target while a copy is unfinished."""

Row = dict[str, Any]
Convert = Callable[[Table, Row], Row | None]
"""Returns a row in the form that both databases can store, or None for one that is not copied."""


class CopyRefused(Conflict):
    """The target holds data that the copy did not write, or differs after it."""


@dataclass(frozen=True)
class CopyPlan:
    """What is copied: the tables without those that triggers fill, and the table (key, value) that records progress."""

    metadata: MetaData
    state: Table
    derived: frozenset[str]
    convert: Convert
    finish: Callable[[AsyncConnection], Any]
    """Called in the last transaction on the target, for rows that are computed from others."""

    @property
    def tables(self) -> list[Table]:
        """The tables to copy, referred ones first; the state table last, so that an unfinished target looks new."""
        tables = [table for table in self.metadata.sorted_tables if table.name not in self.derived]
        return [*(table for table in tables if table is not self.state), self.state]


async def copy_database(
    source: Database,
    target: Database,
    plan: CopyPlan,
    on_progress: Callable[[str, int], None] = lambda _name, _rows: None,
) -> dict[str, int]:
    """Copy all rows of `source` to `target`, both migrated; return the number of rows by table.

    Raises CopyRefused if the target has other data, or if the databases differ at the end.
    """
    progress = await _start(target, plan)
    numbers: dict[str, int] = {}
    for table in plan.tables:
        name = str(table.name)
        last, number = progress.get(name, (None, 0))
        async for rows in _parts(source, table, plan.convert, last):
            number += len(rows)
            last = [rows[-1][column.name] for column in table.primary_key]
            progress[name] = (last, number)
            async with target.write() as connection:
                await connection.execute(insert(table).on_conflict_do_nothing(), rows)
                await _store_progress(connection, plan.state, progress)
            on_progress(name, number)
        numbers[name] = number
    await _verify(source, target, plan)
    async with target.write() as connection:
        await plan.finish(connection)
        await _set_sequences(connection, target, plan.tables)
        await connection.execute(delete(plan.state).where(plan.state.c.key == PROGRESS_KEY))
    return numbers


async def _start(target: Database, plan: CopyPlan) -> dict[str, Any]:
    """Return the progress of an interrupted copy, or prepare a new target. Raises CopyRefused."""
    async with target.write() as connection:
        row = await connection.scalar(select(plan.state.c.value).where(plan.state.c.key == PROGRESS_KEY))
        if row is not None:
            stored: dict[str, Any] = orjson.loads(row)
            return stored
        for table in plan.tables:
            number = await connection.scalar(select(func.count()).select_from(table))
            if number and table.name not in ("users", plan.state.name):
                raise CopyRefused(f"{target.address} has {number} rows in {table.name}: copy to a new, empty database")
        if (await connection.scalar(select(func.count()).select_from(plan.metadata.tables["users"])) or 0) > 1:
            raise CopyRefused(f"{target.address} has accounts: copy to a new, empty database")
        for table in reversed(plan.tables):
            await connection.execute(delete(table))
        await _store_progress(connection, plan.state, {})
    return {}


async def _store_progress(connection: AsyncConnection, state: Table, progress: dict[str, Any]) -> None:
    values = insert(state).values(key=PROGRESS_KEY, value=orjson.dumps(progress).decode())
    changed = {"value": values.excluded.value}
    await connection.execute(values.on_conflict_do_update(index_elements=["key"], set_=changed))


async def _parts(
    source: Database, table: Table, convert: Convert, last: Sequence[Any] | None
) -> AsyncIterator[list[Row]]:
    """Yield the rows after the key `last`, converted, in parts."""
    keys: list[Column[Any]] = list(table.primary_key)
    stored = [column for column in table.columns if column.computed is None]
    while True:
        query = select(*stored).order_by(*keys).limit(ROWS_PER_PART)
        if last is not None:
            after = [literal(value, key.type) for key, value in zip(keys, last, strict=True)]
            query = query.where(tuple_(*keys) > tuple_(*after))
        async with source.read() as connection:
            rows = [dict(row) for row in (await connection.execute(query)).mappings()]
        if not rows:
            return
        last = [rows[-1][key.name] for key in keys]
        converted = [row for row in (convert(table, row) for row in rows) if row is not None]
        if converted:
            yield converted


async def _verify(source: Database, target: Database, plan: CopyPlan) -> None:
    """Compare all rows of both databases. Raises CopyRefused."""
    for table in plan.tables:
        sums = [await _checksum(database, table, plan.convert) for database in (source, target)]
        if sums[0] != sums[1]:
            raise CopyRefused(
                f"{target.address} differs from {source.address} in {table.name} ({sums[1][0]} rows of {sums[0][0]}): was one of "
                "them in use? Stop all servers and copy to a new, empty database"
            )


async def _checksum(database: Database, table: Table, convert: Convert) -> tuple[int, str]:
    """Return the number of rows and a hash of their values."""
    digest, number = hashlib.sha256(), 0
    async for rows in _parts(database, table, convert, None):
        number += len(rows)
        for row in rows:
            digest.update(
                orjson.dumps(
                    {str(name): value for name, value in row.items()}, default=_as_text, option=orjson.OPT_SORT_KEYS
                )
            )
    return number, digest.hexdigest()


def _as_text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


async def _set_sequences(connection: AsyncConnection, target: Database, tables: Sequence[Table]) -> None:
    """Let PostgreSQL's generated numbers go on after the copied ones; SQLite does that by itself."""
    if target.dialect != "postgresql":
        return
    for table in tables:
        column = table.autoincrement_column
        if column is not None:
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            highest = select(func.coalesce(func.max(column), 0)).scalar_subquery()
            await connection.execute(select(func.setval(sequence, highest + literal_column("1"), text("false"))))
