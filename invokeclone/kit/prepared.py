"""Statements that are compiled once and run in one step, for the few places where a request's cost is mostly SQLAlchemy's.

Through SQLAlchemy a small read makes four trips to the database's thread (cursor, execute, fetch, close) and builds its
cache key anew; a prepared one makes one trip. It knows no table, converts no result types and is not seen by `log_sql`.
"""

from functools import cached_property
from typing import Any

from sqlalchemy import BindParameter, Executable, bindparam
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ClauseElement

Rows = list[tuple[Any, ...]]

_DIALECT = sqlite.dialect(paramstyle="named")


def parameter(name: str) -> BindParameter[Any]:
    """Return the place of a value in a prepared statement; null unless it is given."""
    return bindparam(name, required=False)


class Prepared:
    """A Core statement with `parameter`s, written out once for SQLite."""

    def __init__(self, statement: Executable) -> None:
        """Keep `statement`; it is compiled when first run."""
        self._statement = statement

    @cached_property
    def _compiled(self) -> tuple[str, dict[str, Any]]:
        assert isinstance(self._statement, ClauseElement)
        compiled = self._statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
        return str(compiled), dict(compiled.params)

    async def rows(self, connection: AsyncConnection, **values: Any) -> Rows:
        """Run it in the connection's transaction with values for its parameters; return all rows as plain tuples."""
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert driver is not None
        sql, given = self._compiled
        found = await driver.execute_fetchall(sql, given | values)
        return list(found)

    async def first(self, connection: AsyncConnection, **values: Any) -> tuple[Any, ...] | None:
        """Run it and return the first row, if there is one."""
        rows = await self.rows(connection, **values)
        return rows[0] if rows else None
