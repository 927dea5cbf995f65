"""Where store functions run their statements; transactions on SQLite's database thread, where each is a plain call.

Store functions are coroutines that await only the database. On a SQLAlchemy connection each statement is a hop to the
driver's thread and back; in a `Transaction` no statement suspends, so the coroutine runs to its end on that thread.
"""

import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

Rows = list[tuple[Any, ...]]
Values = Mapping[str, Any] | Sequence[Any]
Result = TypeVar("Result")
Dialect = Literal["sqlite", "postgresql"]


def fetch(connection: sqlite3.Connection, sql: str, values: Values) -> Rows:
    """Run a statement and return its rows. Raises OperationalError as SQLAlchemy does."""
    try:
        return connection.execute(sql, values).fetchall()
    except sqlite3.OperationalError as error:
        raise OperationalError(sql, None, error) from error


class Transaction:
    """A transaction on the database thread, for prepared statements."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, values: Values) -> Rows:
        """Run a statement and return its rows. Raises OperationalError."""
        return fetch(self._connection, sql, values)

    def many(self, sql: str, values: Iterable[Values]) -> None:
        """Run a statement once for each of `values`. Raises OperationalError."""
        try:
            self._connection.executemany(sql, values)
        except sqlite3.OperationalError as error:
            raise OperationalError(sql, None, error) from error


class RemoteTransaction(Protocol):
    """A transaction of a database server, for prepared statements."""

    async def fetch_rows(self, sql: str, values: Sequence[Any]) -> Rows:
        """Run a statement and return its rows. Raises SQLAlchemy's errors."""
        ...


Changes: TypeAlias = AsyncConnection | Transaction | RemoteTransaction
"""Where a prepared write runs: in a transaction of SQLAlchemy's, on the database thread, or of a database server."""


class CommitUnknown(OperationalError):
    """The connection was lost while a transaction was committed: the database has it, or nothing of it."""

    is_outcome_unknown = True
    """Read by `kit.files.storage_errors`."""

    def __init__(self, result: Any, error: BaseException) -> None:
        """Keep the `result` that the transaction has if it is stored."""
        super().__init__("COMMIT", None, error)
        self.result = result


class TransactionAbandoned(Exception):
    """The caller was canceled before the commit."""


def run(
    connection: sqlite3.Connection,
    work: Callable[[Transaction], Coroutine[Any, Any, Result]],
    abandoned: threading.Event,
) -> Result:
    """Run `work` between BEGIN IMMEDIATE and COMMIT in this thread.

    Roll back on an error or when `abandoned` is set.
    """
    fetch(connection, "BEGIN IMMEDIATE", ())
    try:
        result = _run_to_completion(work(Transaction(connection)))
        _commit(connection, abandoned)
    except BaseException:
        connection.rollback()
        raise
    return result


def _commit(connection: sqlite3.Connection, abandoned: threading.Event) -> None:
    if abandoned.is_set():
        raise TransactionAbandoned
    fetch(connection, "COMMIT", ())


def _run_to_completion(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    work.close()
    raise RuntimeError("a transaction awaits something other than its statements")
