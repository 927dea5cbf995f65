"""Statements that are compiled once and run in one step, for the few places where a request's cost is mostly SQLAlchemy's.

Through SQLAlchemy a small read makes four trips to the database's thread (cursor, execute, fetch, close) and builds its
cache key anew; a prepared one makes one trip. Run on the database itself, and not on a connection, it needs no transaction
either, which would be two more. It knows no table, converts no result types and is not seen by `log_sql`.
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
"""Where a prepared read runs: in a transaction, or by itself as of now."""

_DIALECT = sqlite.dialect(paramstyle="named")


def parameter(name: str) -> BindParameter[Any]:
    """Return the place of a value in a prepared statement; null unless it is given."""
    return bindparam(name, required=False)


def json_list(values: Iterable[Any]) -> str:
    """Return `values`, however many, as one parameter, for `members`."""
    return orjson.dumps(list(values)).decode()


def members(name: str) -> Select[Any]:
    """Return the values of the JSON list that is given under `name` as a subquery: one statement whatever their number."""
    return select(func.json_each(parameter(name)).table_valued("value", name=name).c.value)


class PreparedStatement:
    """A Core statement with `parameter`s, written out once for SQLite."""

    def __init__(self, statement: Executable) -> None:
        """Keep `statement`; it is compiled when first run."""
        self._statement = statement

    @cached_property
    def _compiled(self) -> tuple[str, dict[str, Any]]:
        assert isinstance(self._statement, ClauseElement)
        compiled = self._statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
        return str(compiled), dict(compiled.params)

    async def rows(self, source: Source, **values: Any) -> Rows:
        """Run it with values for its parameters; return all rows as plain tuples.

        In the connection's transaction; on the database only what changes nothing.
        """
        sql, defaults = self._compiled
        if isinstance(source, Database):
            return await source.fetch(sql, defaults | values)
        return await run(source, sql, defaults | values)

    async def first(self, source: Source, **values: Any) -> tuple[Any, ...] | None:
        """Run it and return the first row, if there is one."""
        rows = await self.rows(source, **values)
        return rows[0] if rows else None


async def run(changes: Changes, sql: str, values: Values) -> Rows:
    """Run a statement in the driver's own words and return its rows. Raises OperationalError, wherever it runs."""
    if isinstance(changes, Transaction):
        return changes.rows(sql, values)
    try:
        return list(await (await _driver(changes)).execute_fetchall(sql, values))
    except sqlite3.OperationalError as error:
        raise OperationalError(sql, None, error) from error


async def run_many(changes: Changes, sql: str, values: Iterable[Values]) -> int:
    """Run a statement in the driver's own words once for each of `values`, in the database's thread; return how many rows it changed."""
    if isinstance(changes, Transaction):
        return changes.many(sql, values)
    async with (await _driver(changes)).executemany(sql, values) as cursor:
        return int(cursor.rowcount)


async def _driver(connection: AsyncConnection) -> Any:
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    return driver
