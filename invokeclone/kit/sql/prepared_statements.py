"""Prepared statements: compiled once and run in one step, for requests whose cost is mostly SQLAlchemy's.

Through SQLAlchemy a small read makes four hops to the database thread (cursor, execute, fetch, close) and rebuilds its
cache key; a prepared one makes one hop. Run on the database and not on a connection, it needs no transaction either,
which would be two more. Result types are not converted, and `log_sql` does not log these statements.
"""

import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeAlias

import orjson
from sqlalchemy import BindParameter, Executable, Integer, Select, bindparam, column, func, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ClauseElement

import invokeclone.kit.sql.functions  # noqa: F401  (registers the functions that differ by database)
from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.transactions import Changes, Dialect, Rows, Transaction, Values

Source: TypeAlias = Changes | Database
"""Where a prepared read runs: in a transaction, or on its own."""

_SQLITE = sqlite.dialect(paramstyle="named")


@cache
def _postgres() -> Any:
    """Return the dialect of asyncpg, whose import takes time that SQLite's users do not have to spend."""
    from sqlalchemy.dialects.postgresql import asyncpg

    return asyncpg.dialect()  # type: ignore[no-untyped-call]


def parameter(name: str) -> BindParameter[Any]:
    """Return a parameter of a prepared statement; null unless it is given."""
    return bindparam(name, required=False)


def json_list(values: Iterable[Any]) -> str:
    """Return `values` as one parameter for `members`, whatever their number."""
    values = list(values)
    text = orjson.dumps(values).decode()
    if "\\u0000" in text:
        return orjson.dumps([without_nul(value) for value in values]).decode()
    return text


def without_nul(value: Any) -> Any:
    """Replace NUL characters, which no stored text has and PostgreSQL rejects: such a text matches nothing."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value


def members(name: str) -> Select[Any]:
    """Return a subquery for the texts of the JSON list in parameter `name`: one statement for any number of values."""
    return select(func.json_each(parameter(name)).table_valued("value", name=name).c.value)


def integers(name: str) -> Select[Any]:
    """Return a subquery for the integers of the JSON list in parameter `name`."""
    elements = func.json_each_integer(parameter(name)).table_valued(column("value", Integer), name=name)
    return select(elements.c.value)


def dialect_of(source: Source) -> Dialect:
    """Return the dialect of the database where a statement runs."""
    if isinstance(source, Database):
        return source.dialect
    if isinstance(source, Transaction):
        return "sqlite"
    if isinstance(source, AsyncConnection):
        return "sqlite" if source.dialect.name == "sqlite" else "postgresql"
    return "postgresql"


@dataclass(frozen=True, slots=True)
class DialectSql:
    """SQL text of each dialect, in its driver's paramstyle; a statement for only one of them is a plain text."""

    sqlite: str
    postgresql: str


class PreparedStatement:
    """A Core statement with `parameter`s, compiled once for each dialect."""

    def __init__(self, statement: Executable) -> None:
        """Store `statement`; it is compiled on first use."""
        self._statement = statement

    @cached_property
    def _compiled(self) -> tuple[str, dict[str, Any]]:
        compiled = self._compile(_SQLITE)
        return str(compiled), dict(compiled.params)

    @cached_property
    def _compiled_postgres(self) -> tuple[str, tuple[str, ...], dict[str, Any]]:
        compiled = self._compile(_postgres())
        return _with_types(str(compiled)), tuple(compiled.positiontup or ()), dict(compiled.params)

    def _compile(self, dialect: Any) -> Any:
        assert isinstance(self._statement, ClauseElement)
        return self._statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})

    def text(self, dialect: Dialect) -> str:
        """Return the SQL text."""
        return self._compiled[0] if dialect == "sqlite" else self._compiled_postgres[0]

    async def rows(self, source: Source, **values: Any) -> Rows:
        """Run the statement with values for its parameters; return all rows as plain tuples.

        On a connection it runs in its transaction; on a database use it for reads only.
        """
        arguments: Any
        if dialect_of(source) == "sqlite":
            sql, defaults = self._compiled
            arguments = defaults | values
        else:
            sql, names, defaults = self._compiled_postgres
            arguments = tuple(without_nul(values[name] if name in values else defaults[name]) for name in names)
        if isinstance(source, Database):
            return await source.fetch(sql, arguments)
        return await _run(source, sql, arguments)

    async def first(self, source: Source, **values: Any) -> tuple[Any, ...] | None:
        """Run the statement and return the first row, None if there is none."""
        rows = await self.rows(source, **values)
        return rows[0] if rows else None


_PARAMETER = re.compile(r"\$(\d+)(?!\d)(?:::(\w+))?( IS )?")


def _with_types(sql: str) -> str:
    """Return PostgreSQL's text with a type at each parameter: `$1 IS NULL` alone does not determine one."""
    types = {number: name for number, name, _ in _PARAMETER.findall(sql) if name}

    def add_type(match: re.Match[str]) -> str:
        number, name, is_compared = match.groups()
        name = name or types.get(number) or ("TEXT" if is_compared else None)
        return f"${number}{'::' + name if name else ''}{is_compared or ''}"

    return _PARAMETER.sub(add_type, sql)


async def run(changes: Changes, sql: DialectSql | str, values: Values) -> Rows:
    """Run SQL text and return its rows. Raises OperationalError in every case."""
    return await _run(changes, _text(sql, dialect_of(changes)), values)


async def run_many(changes: Changes, sql: DialectSql | str, rows: Iterable[Sequence[Any]]) -> None:
    """Run SQL text for each of `rows`; on PostgreSQL once, with an array for each column."""
    text = _text(sql, dialect_of(changes))
    if dialect_of(changes) == "postgresql":
        columns = list(zip(*rows, strict=True))
        if columns:
            await _run(changes, text, columns)
    elif isinstance(changes, Transaction):
        changes.many(text, rows)
    else:
        assert isinstance(changes, AsyncConnection)
        async with (await _driver(changes)).executemany(text, rows):
            pass


def _text(sql: DialectSql | str, dialect: Dialect) -> str:
    return sql if isinstance(sql, str) else str(getattr(sql, dialect))


async def _run(changes: Changes, sql: str, values: Any) -> Rows:
    if isinstance(changes, Transaction):
        return changes.rows(sql, values)
    if not isinstance(changes, AsyncConnection):
        return await changes.fetch_rows(sql, values)
    driver = await _driver(changes)
    if dialect_of(changes) == "postgresql":
        from invokeclone.kit.sql import postgres_errors

        with postgres_errors.translating(sql):
            return [tuple(row) for row in await driver.fetch(sql, *values)]
    try:
        return list(await driver.execute_fetchall(sql, values))
    except sqlite3.OperationalError as error:
        raise OperationalError(sql, None, error) from error


async def _driver(connection: AsyncConnection) -> Any:
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    return driver
