"""Prepared statements: compiled once and run in one step, for requests whose cost is mostly SQLAlchemy's.

Through SQLAlchemy a small read makes four hops to the database thread (cursor, execute, fetch, close) and rebuilds its
cache key; a prepared one makes one hop. Run on the database and not on a connection, it needs no transaction either,
which would be two more. Result types are not converted, and `log_sql` does not log these statements.
"""

import sqlite3
from collections.abc import Iterable
from functools import cached_property
from typing import Any, TypeAlias

import orjson
from sqlalchemy import BindParameter, Executable, Select, bindparam, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ClauseElement

from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.transactions import Changes, Rows, Transaction, Values

Source: TypeAlias = Changes | Database
"""Where a prepared read runs: in a transaction, or on its own."""

_DIALECT = sqlite.dialect(paramstyle="named")


def parameter(name: str) -> BindParameter[Any]:
    """Return a parameter of a prepared statement; null unless it is given."""
    return bindparam(name, required=False)


def json_list(values: Iterable[Any]) -> str:
    """Return `values` as one parameter for `members`, whatever their number."""
    return orjson.dumps(list(values)).decode()


def members(name: str) -> Select[Any]:
    """Return a subquery for the values of the JSON list in parameter `name`: one statement for any number of values."""
    return select(func.json_each(parameter(name)).table_valued("value", name=name).c.value)


class PreparedStatement:
    """A Core statement with `parameter`s, compiled once for SQLite."""

    def __init__(self, statement: Executable) -> None:
        """Store `statement`; it is compiled on first use."""
        self._statement = statement

    @cached_property
    def _compiled(self) -> tuple[str, dict[str, Any]]:
        assert isinstance(self._statement, ClauseElement)
        compiled = self._statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
        return str(compiled), dict(compiled.params)

    async def rows(self, source: Source, **values: Any) -> Rows:
        """Run the statement with values for its parameters; return all rows as plain tuples.

        On a connection it runs in its transaction; on a database use it for reads only.
        """
        sql, defaults = self._compiled
        if isinstance(source, Database):
            return await source.fetch(sql, defaults | values)
        return await run(source, sql, defaults | values)

    async def first(self, source: Source, **values: Any) -> tuple[Any, ...] | None:
        """Run the statement and return the first row, None if there is none."""
        rows = await self.rows(source, **values)
        return rows[0] if rows else None


async def run(changes: Changes, sql: str, values: Values) -> Rows:
    """Run SQL text in the driver's paramstyle and return its rows. Raises OperationalError in every case."""
    if isinstance(changes, Transaction):
        return changes.rows(sql, values)
    try:
        return list(await (await _driver(changes)).execute_fetchall(sql, values))
    except sqlite3.OperationalError as error:
        raise OperationalError(sql, None, error) from error


async def run_many(changes: Changes, sql: str, values: Iterable[Values]) -> int:
    """Run SQL text in the driver's paramstyle for each of `values` in one hop; return the number of changed rows."""
    if isinstance(changes, Transaction):
        return changes.many(sql, values)
    async with (await _driver(changes)).executemany(sql, values) as cursor:
        return int(cursor.rowcount)


async def _driver(connection: AsyncConnection) -> Any:
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    return driver
