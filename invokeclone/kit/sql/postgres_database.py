"""PostgreSQL with asyncpg: single reads, read connections, exclusive transactions, migrations.

Exclusive transactions take an advisory lock first, which gives them SQLite's guarantee: one at a time, in all processes
that use the database. Reads do not wait. The decision and its cost: docs/decisions/0016.
"""

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from invokeclone.kit import log
from invokeclone.kit.sql import postgres_address, postgres_errors
from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.key_locks import KeyLocks
from invokeclone.kit.sql.postgres_schema import PostgresSchema, close
from invokeclone.kit.sql.prepared_statements import without_nul
from invokeclone.kit.sql.transactions import Changes, CommitUnknown, Dialect, Result, Rows

CONNECTIONS = 8
"""Connections for single reads and for `transact`, and as many for SQLAlchemy's; further callers wait."""
CONNECT_TIMEOUT_S = 10
COMMAND_TIMEOUT_S = 60
LISTEN_CHECK_S = 15.0
"""Seconds between checks whether the connection that listens is alive."""
WRITE_LOCK = 0x696E766F6B65
"""Key of the advisory lock of exclusive transactions."""

STARTUP_SETTINGS = {"application_name": "invokeclone", "timezone": "UTC", "client_encoding": "UTF8"}
"""Settings that are sent with the request to connect: those that PgBouncer accepts there."""
SESSION_SETTINGS = {
    "idle_in_transaction_session_timeout": "10s",  # a process that is stopped does not block others for longer
    "lock_timeout": "30s",
    "tcp_keepalives_idle": "10",  # the locks of a machine that is lost without a word are released after 25 s
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",  # statements are short
}
BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
BEGIN_WRITE = f"BEGIN; SELECT pg_advisory_xact_lock({WRITE_LOCK})"

LOCK_ALL = "SELECT pg_advisory_lock(key) FROM (SELECT unnest($1::bigint[]) AS key ORDER BY 1) AS keys"

_log = log.get("kit.database")


def _number(text: str) -> int | float:
    """Return a value of type numeric: sums of 64-bit numbers have it."""
    return float(text) if "." in text or "N" in text else int(text)


class _Statements:
    """Runs prepared statements on asyncpg's connection, in its transaction if one has begun."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def fetch_rows(self, sql: str, values: Sequence[Any]) -> Rows:
        """Run a statement and return its rows. Raises SQLAlchemy's errors."""
        with postgres_errors.translating(sql):
            return [tuple(row) for row in await self._connection.fetch(sql, *values)]


class PostgresDatabase(Database):
    """A PostgreSQL database shared by servers and workers."""

    dialect: ClassVar[Dialect] = "postgresql"
    is_shared: ClassVar[bool] = True

    def __init__(self, url: str, *, echo: bool = False) -> None:
        """Configure the database at `url`, opened on first use; `echo` logs SQLAlchemy's statements.

        Raises DatabaseUnusable for a text that is not the address of a PostgreSQL database.
        """
        self._url = postgres_address.parse_address(url)
        self._schema = PostgresSchema(self._url, self._connect)
        self._idle: list[Any] = []
        self._writing = asyncio.Lock()
        """Exclusive transactions of this process wait here, without a connection that reads could use."""
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._locks = KeyLocks()
        self._free_locks = asyncio.Semaphore(CONNECTIONS)
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

    async def _take(self) -> Any:
        """Return a connection without a transaction, until `_give_back`."""
        await self._free.acquire()
        try:
            connection = self._idle.pop() if self._idle else None
            if connection is None or connection.is_closed():
                with postgres_errors.translating("connect"):
                    connection = await self._connect()
        except BaseException:
            self._free.release()
            raise
        return connection

    def _give_back(self, connection: Any, error: BaseException | None = None) -> None:
        """Keep a connection for the next user; close it if an error may have left a transaction."""
        if error is not None and _is_unusable(connection, error):
            connection.terminate()
        if not connection.is_closed():
            self._idle.append(connection)
        self._free.release()

    async def _run(self, work: Callable[[Any], Coroutine[Any, Any, Result]]) -> Result:
        """Run `work` on a connection without a transaction."""
        connection = await self._take()
        try:
            result = await work(connection)
        except BaseException as error:
            self._give_back(connection, error)
            raise
        self._give_back(connection)
        return result

    async def fetch(self, sql: str, values: Any) -> Rows:
        """Run one SELECT on its own; once more on a new connection if the server closed the idle one."""
        for is_last in (False, True):
            try:
                return await self._run(lambda connection: _Statements(connection).fetch_rows(sql, values))
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
        """Run `work` in an exclusive transaction, commit, and return its result; otherwise commit each statement by itself.

        Raises CommitUnknown if the connection is lost while the transaction is committed.
        """
        if not exclusive:
            return await self._run(lambda connection: work(_Statements(connection)))
        async with self._writing:
            connection = await self._begin()
            try:
                result = await work(_Statements(connection))
                await _commit(connection, result)
            except BaseException as error:
                try:
                    await _end(connection)
                finally:
                    self._give_back(connection, error)
                raise
            self._give_back(connection)
            return result

    async def _begin(self) -> Any:
        """Return a connection in an exclusive transaction; another one if the server closed the idle one."""
        for is_last in (False, True):
            connection = await self._take()
            try:
                with postgres_errors.translating(BEGIN_WRITE):
                    await connection.execute(BEGIN_WRITE)
            except BaseException as error:
                self._give_back(connection, error)
                if is_last or not postgres_errors.is_lost(error):
                    raise
                self._forget_idle()
            else:
                return connection
        raise AssertionError

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
            await _commit(driver)

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
            await asyncio.shield(close(connection))

    @contextlib.asynccontextmanager
    async def lock(self, keys: Iterable[int]) -> AsyncIterator[None]:
        """Hold the locks of `keys` in the block, on a connection of its own; the end of the process releases them."""
        keys = sorted(set(keys))
        async with self._locks.hold(keys), self._free_locks:
            with postgres_errors.translating("lock"):
                connection = await self._connect()
                try:
                    await connection.fetch(LOCK_ALL, keys)
                except BaseException:
                    connection.terminate()
                    raise
            try:
                yield
            finally:
                await asyncio.shield(close(connection))

    # Schema

    async def check(self, revisions: Sequence[str]) -> None:
        """Raise DatabaseUnusable for a server that is unreachable or too old, a database of another program or version."""
        await self._schema.check(revisions)

    async def migrate(self) -> None:
        """Migrate the schema to the newest revision, one process at a time."""
        await self._schema.migrate()

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


def _is_unusable(connection: Any, error: BaseException) -> bool:
    """Return whether a connection may be in a transaction after an error, or is lost.

    After a cancellation the driver does not know its state: the statement may still run.
    """
    if connection.is_closed() or not isinstance(error, Exception) or postgres_errors.is_lost(error):
        return True
    return bool(connection.is_in_transaction())


async def _commit(connection: Any, result: Any = None) -> None:
    """Commit. Raises CommitUnknown if the connection is lost before the answer."""
    try:
        with postgres_errors.translating("COMMIT"):
            await connection.execute("COMMIT")
    except DBAPIError as error:
        if postgres_errors.is_lost(error):
            raise CommitUnknown(result, error.orig or error) from error
        raise


async def _end(connection: Any) -> None:
    """Roll back what is not committed; close the connection if that is cancelled half-way."""
    if connection.is_closed() or not connection.is_in_transaction():
        return
    try:
        await asyncio.shield(_roll_back(connection))
    except asyncio.CancelledError:
        connection.terminate()
        raise


async def _roll_back(connection: Any) -> None:
    """End a transaction that is not committed; close the connection if that fails."""
    try:
        await connection.execute("ROLLBACK")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        connection.terminate()
