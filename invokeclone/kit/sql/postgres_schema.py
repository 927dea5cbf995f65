"""The schema of a PostgreSQL database: whether this version can use it, and its migration."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import asyncpg
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from invokeclone.kit.sql import database_file, migrations, postgres_address
from invokeclone.kit.sql.database_file import DatabaseUnusable

OLDEST_SERVER = 14
"""The oldest major version with the functions that this code uses."""
MIGRATION_LOCK = 0x696E766F6B66
"""Key of the advisory lock of migrations."""
MIGRATION_TIMEOUT_S = 24 * 3600
CLOSE_TIMEOUT_S = 10

FIRST_PROTECTED = """
SELECT min(relname) FROM pg_class
WHERE relnamespace = CAST(CAST(current_schema() AS text) AS regnamespace) AND (
    relkind = 'r' AND NOT (has_table_privilege(oid, 'SELECT') AND has_table_privilege(oid, 'INSERT')
        AND has_table_privilege(oid, 'UPDATE') AND has_table_privilege(oid, 'DELETE'))
    OR CASE WHEN relkind = 'S' THEN NOT has_sequence_privilege(oid, 'USAGE') END
)
"""
"""Selects a table or sequence that the user may not use, NULL if there is none."""

Connect = Callable[..., Coroutine[Any, Any, Any]]
"""Opens a connection of asyncpg; without a time limit for its commands if called with None."""


class PostgresSchema:
    """The schema of a database."""

    def __init__(self, url: URL, connect: Connect) -> None:
        """Check and migrate the database at `url`."""
        self._url = url
        self._address = postgres_address.display(url)
        self._connect = connect

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
                    f"{self._address} is PostgreSQL {major}: version {OLDEST_SERVER} or newer is needed"
                )
            yield connection
        except (
            asyncpg.InsufficientPrivilegeError,
            asyncpg.DuplicatePreparedStatementError,
            asyncpg.InvalidSQLStatementNameError,
        ) as error:
            raise postgres_address.explain(self._url, error) from error
        finally:
            await asyncio.shield(close(connection))

    async def _check_revision(self, connection: Any, revisions: Sequence[str]) -> str | None:
        """Return the revision, None for an empty database."""
        if await connection.fetchval("SHOW server_encoding") != "UTF8":
            raise DatabaseUnusable(f"{self._address} does not store UTF-8: create it with ENCODING 'UTF8'")
        tables = {
            row[0]
            for row in await connection.fetch(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
            )
        }
        if tables and database_file.OWN_TABLE not in tables:
            raise DatabaseUnusable(
                f"{self._address} has tables of another program: nothing was changed; create a database for this server"
            )
        if not tables:
            return None
        revision = await connection.fetchval(f"SELECT version_num FROM {database_file.OWN_TABLE}")  # noqa: S608
        database_file.check_revision(self._address, revision, revisions)
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
                f"{self._address} is read-only: connect to the primary server, or end the default_transaction_read_only of "
                "the database or user"
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
                f"the user of {self._address} may not create tables: GRANT CREATE ON SCHEMA public TO {self._url.username}"
            )


async def close(connection: Any) -> None:
    """Close a connection; a server that does not answer is not waited for."""
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):  # TimeoutError is an OSError
        await connection.close(timeout=CLOSE_TIMEOUT_S)
