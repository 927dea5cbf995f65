"""What a database offers to store functions and services, whichever it is: single reads, transactions, migrations.

No module outside kit/sql begins or commits a transaction.
"""

import abc
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.sql.database_file import DatabaseUnusable
from invokeclone.kit.sql.transactions import Changes, Dialect, Result, Rows


class Database(abc.ABC):
    """The database of a server and its workers."""

    dialect: ClassVar[Dialect]
    is_shared: ClassVar[bool]
    """Whether other servers may use it at the same time: then nobody may assume that an item's worker is gone."""

    @property
    @abc.abstractmethod
    def address(self) -> str:
        """The file or the address without its password, for people."""

    @abc.abstractmethod
    async def fetch(self, sql: str, values: Any) -> Rows:
        """Run one SELECT on its own and return its rows: no transaction, no type conversion."""

    @abc.abstractmethod
    def read(self) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """Return a connection for reading in one transaction, thus from one snapshot."""

    @abc.abstractmethod
    def write(self) -> contextlib.AbstractAsyncContextManager[AsyncConnection]:
        """Return a connection in an exclusive transaction: committed at the end, rolled back on an error.

        It waits until all other exclusive transactions have ended, those of other processes too: a transaction may read,
        decide, and write without being overtaken.
        """

    @abc.abstractmethod
    async def transact(
        self, work: Callable[[Changes], Coroutine[Any, Any, Result]], *, exclusive: bool = True
    ) -> Result:
        """Run `work` in a transaction, commit, and return its result.

        `work` may await prepared statements only (kit/sql/prepared_statements.py). An exception in it, or a
        cancellation before the commit, rolls back. If it is not `exclusive`, a database server commits each of its
        statements by itself, beside other transactions: they must be right by themselves.
        """

    @abc.abstractmethod
    def try_lock(self, key: int) -> contextlib.AbstractAsyncContextManager[bool]:
        """Yield whether no other server holds the lock `key`; if so, it is held until the end of the block or process."""

    @abc.abstractmethod
    def lock(self, keys: Iterable[int]) -> contextlib.AbstractAsyncContextManager[None]:
        """Hold the locks of `keys` (`key_locks.key_of`) in the block, after waiting for those of other servers and tasks.

        It is no transaction, so that the block may await anything. Raises SQLAlchemy's OperationalError if another server
        holds one for too long.
        """

    @abc.abstractmethod
    async def check(self, revisions: Sequence[str]) -> None:
        """Raise DatabaseUnusable, without writing, if this version cannot use the database."""

    @abc.abstractmethod
    async def migrate(self) -> None:
        """Migrate the schema to the newest revision; imports Alembic only if a migration is needed.

        Raises DatabaseUnusable, with nothing written, for a database of another program or a newer version, a damaged
        or an unreachable one.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Close every connection."""


def open_database(settings: Settings) -> Database:
    """Return the database of the settings; it is opened on first use.

    Raises DatabaseUnusable for an address that is none, or without the library that it needs.
    """
    if settings.database_url is None:
        from invokeclone.kit.sql.sqlite_database import SqliteDatabase

        return SqliteDatabase(settings.database_path, echo=settings.log_sql)
    try:
        from invokeclone.kit.sql.postgres_database import PostgresDatabase
    except ModuleNotFoundError as error:
        raise DatabaseUnusable(
            f"database_url needs {error.name}: install the extra with pip install 'invokeclone[postgres]'"
        ) from error
    return PostgresDatabase(settings.database_url, echo=settings.log_sql)
