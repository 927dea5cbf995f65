"""PostgreSQL with asyncpg: single reads, read connections, exclusive transactions, migrations.

Exclusive transactions take an advisory lock first, which gives them SQLite's guarantee: one at a time, in all processes
that use the database. Reads do not wait. The decision and its cost: docs/decisions/0016.
"""

import asyncio
import contextlib
import errno
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar

import asyncpg
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from invokeclone.kit import log
from invokeclone.kit.sql import database_file, migrations, postgres_address, postgres_errors
from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.database_file import DatabaseUnusable
from invokeclone.kit.sql.prepared_statements import run_in_parts, without_nul
from invokeclone.kit.sql.transactions import Changes, Dialect, Result, Rows

CONNECTIONS = 8
"""Connections for single reads and for `transact`, and as many for SQLAlchemy's; further callers wait."""
CONNECT_TIMEOUT_S = 10
COMMAND_TIMEOUT_S = 60
MIGRATION_TIMEOUT_S = 24 * 3600
LISTEN_CHECK_S = 15.0
"""Seconds between checks whether the connection that listens is alive."""
OLDEST_SERVER = 14
"""The oldest major version with the functions that this code uses."""
WRITE_LOCK = 0x696E766F6B65
"""Key of the advisory lock of exclusive transactions."""
MIGRATION_LOCK = WRITE_LOCK + 1

STARTUP_SETTINGS = {"application_name": "invokeclone", "timezone": "UTC", "client_encoding": "UTF8"}
"""Settings that are sent with the request to connect: those that PgBouncer accepts there."""
SESSION_SETTINGS = {
    "idle_in_transaction_session_timeout": "10s",  # a process that is stopped does not block others for longer
    "lock_timeout": "30s",
    "jit": "off",  # statements are short
}
FIRST_PROTECTED = """
SELECT min(relname) FROM pg_class
WHERE relnamespace = CAST(CAST(current_schema() AS text) AS regnamespace) AND (
    relkind = 'r' AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
        AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
    OR CASE WHEN relkind = 'S' THEN NOT has_sequence_privilege(oid, 'USAGE') END
)
"""
"""Selects a table or sequence that the user may not use, NULL if there is none."""
BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
BEGIN_WRITE = f"BEGIN; SELECT pg_advisory_xact_lock({WRITE_LOCK})"

_log = log.get("kit.database")


def _number(text: str) -> int | float:
    """Return a value of type numeric: sums of 64-bit numbers have it."""
    return float(text) if "." in text or "N" in text else int(text)


class _Transaction:
    """A transaction on asyncpg's connection, for prepared statements."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch_rows(self, sql: str, values: Sequence[Any]) -> Rows:
        """Run a statement and return its rows. Raises SQLAlchemy's errors."""
        with postgres_errors.translating(sql):
            return [tuple(row) for row in await self._connection.fetch(sql, *values)]

    async def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each of `values`. Raises SQLAlchemy's errors."""
        await run_in_parts(self._connection, sql, values)


class PostgresDatabase(Database):
    """A PostgreSQL database shared by servers and workers."""

    dialect: ClassVar[Dialect] = "postgresql"
    is_shared: ClassVar[bool] = True

    def __init__(self, url: str, *, echo: bool = False) -> None:
        """Configure the database at `url`, opened on first use; `echo` logs SQLAlchemy's statements.

        Raises DatabaseUnusable for a text that is not the address of a PostgreSQL database.
        """
        self._url = postgres_address.parse_address(url)
        self._idle: list[Any] = []
        self._writing = asyncio.Lock()
        """Exclusive transactions of this process wait here, without a connection that reads could use."""
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._engine: AsyncEngine = create_async_engine(
            self._url,
            echo=echo,
            isolation_level="AUTOCOMMIT",  # BEGIN and COMMIT are sent here
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_use_lifo=True,
            pool_reset_on_return=None,  # connections are returned without a transaction
            async_creator=self._connect,
        )
        event.listen(self._engine.sync_engine, "before_cursor_execute", _without_nul, retval=True)

    @property
    def address(self) -> str:
        """The address without its password."""
        return postgres_address.display(self._url)

    async def _connect(self, command_timeout_s: float | None = COMMAND_TIMEOUT_S) -> Any:
        """Open a connection; without a time limit for its commands if `command_timeout_s` is None."""
        dsn = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            connection = await asyncpg.connect(
                dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=command_timeout_s, server_settings=STARTUP_SETTINGS
            )
        except FileNotFoundError as error:  # the socket of a server that is stopped
            raise ConnectionRefusedError(errno.ECONNREFUSED, "no PostgreSQL has a socket there") from error
        try:
            await connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in SESSION_SETTINGS.items()))
        except BaseException:
            connection.terminate()
            raise
        await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=_number, format="text")
        return connection

    # Single reads and prepared transactions

    @contextlib.asynccontextmanager
    async def _borrow(self) -> AsyncIterator[Any]:
        """Yield a connection without a transaction; it is closed if an error may have left one."""
        async with self._free:
            connection = self._idle.pop() if self._idle else None
            if connection is None or connection.is_closed():
                with postgres_errors.translating("connect"):
                    connection = await self._connect()
            try:
                yield connection
            except BaseException as error:
                if _is_unusable(connection, error):
                    connection.terminate()
                raise
            finally:
                if not connection.is_closed():
                    self._idle.append(connection)

    async def fetch(self, sql: str, values: Any) -> Rows:
        """Run one SELECT on its own; once more on a new connection if the server closed the idle one."""
        for is_last in (False, True):
            try:
                async with self._borrow() as connection:
                    with postgres_errors.translating(sql):
                        return [tuple(row) for row in await connection.fetch(sql, *values)]
            except Exception as error:
                if is_last or not postgres_errors.is_lost(error):
                    raise
                self._forget_idle()
        raise AssertionError

    def _forget_idle(self) -> None:
        """Close the idle connections: the server was restarted, and they are all lost."""
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()

    async def transact(
        self, work: Callable[[Changes], Coroutine[Any, Any, Result]], *, exclusive: bool = True
    ) -> Result:
        """Run `work` in a transaction, commit, and return its result."""
        if not exclusive:
            return await self._transact("BEGIN", work)
        async with self._writing:
            return await self._transact(BEGIN_WRITE, work)

    async def _transact(self, begin: str, work: Callable[[Changes], Coroutine[Any, Any, Result]]) -> Result:
        async with self._begin(begin) as connection:
            result = await work(_Transaction(connection))
            with postgres_errors.translating("COMMIT"):
                await connection.execute("COMMIT")
            return result

    @contextlib.asynccontextmanager
    async def _begin(self, begin: str) -> AsyncIterator[Any]:
        """Yield a connection in a transaction, rolled back unless it was committed."""
        for is_last in (False, True):
            async with contextlib.AsyncExitStack() as stack:
                connection: Any = None
                try:
                    connection = await stack.enter_async_context(self._borrow())
                    with postgres_errors.translating(begin):
                        await connection.execute(begin)
                except BaseException as error:
                    if connection is not None and _is_unusable(connection, error):
                        connection.terminate()
                    if is_last or not postgres_errors.is_lost(error):
                        raise
                    self._forget_idle()
                    continue
                try:
                    yield connection
                finally:
                    await _end(connection)
                return

    # Connections of SQLAlchemy

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for reading in one transaction, thus from one snapshot."""
        async with self._transaction(BEGIN_READ) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in an exclusive transaction: committed at the end, rolled back on an error."""
        async with self._writing, self._transaction(BEGIN_WRITE) as connection:
            yield connection
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            with postgres_errors.translating("COMMIT"):
                await driver.execute("COMMIT")

    @contextlib.asynccontextmanager
    async def _transaction(self, begin: str) -> AsyncIterator[AsyncConnection]:
        """Yield a connection after `begin`, rolled back unless it was committed."""
        for is_last in (False, True):
            with postgres_errors.translating("connect"):
                connection = await self._engine.connect()
            try:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                try:
                    with postgres_errors.translating(begin):
                        await driver.execute(begin)
                except BaseException as error:
                    driver.terminate()  # it may be in a transaction that has failed, or that still begins
                    await asyncio.shield(connection.invalidate())
                    if is_last or not postgres_errors.is_lost(error):
                        raise
                    await self._engine.dispose()  # the server was restarted: the idle connections are lost, too
                    continue
                try:
                    with postgres_errors.internal_translated():
                        yield connection
                finally:
                    try:
                        await _end(driver)
                    finally:
                        if driver.is_closed():
                            await asyncio.shield(connection.invalidate())
                return
            finally:
                await asyncio.shield(connection.close())

    # Between servers

    async def notify(self, channel: str, texts: Sequence[str]) -> None:
        """Send texts, of less than 8000 bytes each, to all processes that listen on `channel`."""
        await self.fetch("SELECT pg_notify($1, text) FROM unnest(CAST($2 AS text[])) AS texts (text)", (channel, texts))

    async def listen(self, channel: str, receive: Callable[[str], None], connected: Callable[[], None]) -> None:
        """Call `connected` once, then `receive` for every text of `channel`, until the connection is lost.

        Raises the error of the lost connection; texts that are sent before the next call are lost.
        """
        lost = asyncio.Event()
        with postgres_errors.translating("LISTEN"):
            connection = await self._connect()
            try:
                connection.add_termination_listener(lambda _connection: lost.set())
                await connection.add_listener(channel, lambda _connection, _process, _channel, text: receive(text))
                connected()
                while not lost.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(lost.wait(), LISTEN_CHECK_S)
                    await connection.execute("SELECT 1", timeout=CONNECT_TIMEOUT_S)
            finally:
                connection.terminate()

    @contextlib.asynccontextmanager
    async def try_lock(self, key: int) -> AsyncIterator[bool]:
        """Yield whether no other server holds the lock `key`; if so, it is held until the end of the block or process."""
        with postgres_errors.translating("lock"):
            connection = await self._connect()
            try:
                is_held = await connection.fetchval("SELECT pg_try_advisory_lock($1)", key)
            except BaseException:
                connection.terminate()
                raise
        try:
            yield bool(is_held)
        finally:
            await asyncio.shield(_close(connection))

    # Schema

    async def check(self, revisions: Sequence[str]) -> None:
        """Raise DatabaseUnusable for a server that is unreachable or too old, a database of another program or version."""
        async with self._open_or_explain() as connection:
            await self._check_revision(connection, revisions)

    @contextlib.asynccontextmanager
    async def _open_or_explain(self) -> AsyncIterator[Any]:
        """Yield a connection; raise DatabaseUnusable for a server, user or pool that cannot be used."""
        try:
            connection = await self._connect()
        except postgres_address.UNUSABLE as error:
            raise postgres_address.explain(self._url, error) from error
        try:
            major = connection.get_server_version().major
            if major < OLDEST_SERVER:
                raise DatabaseUnusable(
                    f"{self.address} is PostgreSQL {major}: version {OLDEST_SERVER} or newer is needed"
                )
            yield connection
        except (
            asyncpg.InsufficientPrivilegeError,
            asyncpg.DuplicatePreparedStatementError,
            asyncpg.InvalidSQLStatementNameError,
        ) as error:
            raise postgres_address.explain(self._url, error) from error
        finally:
            await asyncio.shield(_close(connection))

    async def _check_revision(self, connection: Any, revisions: Sequence[str]) -> str | None:
        """Return the revision, None for an empty database."""
        if await connection.fetchval("SHOW server_encoding") != "UTF8":
            raise DatabaseUnusable(f"{self.address} does not store UTF-8: create it with ENCODING 'UTF8'")
        tables = {
            row[0]
            for row in await connection.fetch(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
            )
        }
        if tables and database_file.OWN_TABLE not in tables:
            raise DatabaseUnusable(
                f"{self.address} has tables of another program: nothing was changed; create a database for this server"
            )
        if not tables:
            return None
        revision = await connection.fetchval(f"SELECT version_num FROM {database_file.OWN_TABLE}")  # noqa: S608
        database_file.check_revision(self.address, revision, revisions)
        return str(revision) if revision else None

    async def migrate(self) -> None:
        """Migrate the schema to the newest revision, one process at a time."""
        async with self._open_or_explain() as connection:
            await self._require_own_session(connection)
            await connection.execute("SET lock_timeout = 0")  # another server may be migrating
            await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK, timeout=MIGRATION_TIMEOUT_S)
            revisions = migrations.revisions()
            current = await self._check_revision(connection, revisions)
            await self._require_writable(connection)
            if current != revisions[-1]:
                await self._require_permission(connection)
                await self._upgrade(is_empty=current is None)

    async def _require_own_session(self, connection: Any) -> None:
        """Raise DatabaseUnusable if a pool runs the statements of two connections in one session of the server."""
        async with self._open_or_explain() as other:
            if await connection.fetchval("SELECT pg_backend_pid()") == await other.fetchval("SELECT pg_backend_pid()"):
                raise DatabaseUnusable(postgres_address.pools_transactions(self._url))

    async def _require_writable(self, connection: Any) -> None:
        """Raise DatabaseUnusable for a standby, and for a user who may not change the tables."""
        if await connection.fetchval("SHOW transaction_read_only") == "on":
            raise DatabaseUnusable(
                f"{self.address} is read-only: connect to the primary server, or end the default_transaction_read_only of the "
                "database or user"
            )
        name = await connection.fetchval(FIRST_PROTECTED)
        if name is not None:
            raise postgres_address.too_few_rights(self._url, f"it may not change {name}")

    async def _upgrade(self, *, is_empty: bool) -> None:
        """Apply all migrations in one transaction."""
        connect = functools.partial(self._connect, None)
        engine = create_async_engine(self._url, poolclass=NullPool, async_creator=connect)
        async with engine.begin() as connection:
            await migrations.upgrade_postgres(connection, is_empty=is_empty)
        await engine.dispose()

    async def _require_permission(self, connection: Any) -> None:
        if not await connection.fetchval("SELECT has_schema_privilege(current_schema(), 'CREATE')"):
            raise DatabaseUnusable(
                f"the user of {self.address} may not create tables: GRANT CREATE ON SCHEMA public TO {self._url.username}"
            )

    async def close(self) -> None:
        """Close every connection."""
        self._forget_idle()
        await self._engine.dispose()


def _without_nul(  # the signature is SQLAlchemy's
    _connection: Any,
    _cursor: Any,
    statement: str,
    parameters: Any,
    _context: Any,
    executemany: bool,
) -> tuple[str, Any]:
    """Replace NUL characters in the parameters of a statement of SQLAlchemy's."""
    if executemany:
        return statement, [tuple(map(without_nul, row)) for row in parameters]
    return statement, tuple(map(without_nul, parameters))


async def _close(connection: Any) -> None:
    """Close a connection; a server that does not answer is not waited for."""
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):  # TimeoutError is an OSError
        await connection.close(timeout=CONNECT_TIMEOUT_S)


def _is_unusable(connection: Any, error: BaseException) -> bool:
    """Return whether a connection may be in a transaction after an error, or is lost.

    After a cancellation the driver does not know its state: the statement may still run.
    """
    if connection.is_closed() or not isinstance(error, Exception) or postgres_errors.is_lost(error):
        return True
    return bool(connection.is_in_transaction())


async def _end(connection: Any) -> None:
    """Roll back what is not committed; close the connection if that is cancelled half-way."""
    try:
        await asyncio.shield(_roll_back(connection))
    except asyncio.CancelledError:
        connection.terminate()
        raise


async def _roll_back(connection: Any) -> None:
    """End a transaction that is not committed; close the connection if that fails."""
    if connection.is_closed() or not connection.is_in_transaction():
        return
    try:
        await connection.execute("ROLLBACK")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        connection.terminate()
