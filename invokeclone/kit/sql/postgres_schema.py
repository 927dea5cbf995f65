"""The schema of a PostgreSQL database: whether this version can use it, and its migration."""

import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import asyncpg
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from invokeclone.kit.sql import database_file, migrations
from invokeclone.kit.sql.database_file import DatabaseUnusable

OLDEST_SERVER = 14
"""The oldest major version with the functions that this code uses."""
MIGRATION_LOCK = 0x696E766F6B66
"""Key of the advisory lock of migrations."""
MIGRATION_TIMEOUT_S = 24 * 3600

Connect = Callable[..., Coroutine[Any, Any, Any]]
"""Opens a connection of asyncpg; without a time limit for its commands if called with None."""


class PostgresSchema:
    """The schema of a database."""

    def __init__(self, url: URL, address: str, connect: Connect) -> None:
        """Check and migrate the database at `url`, which messages call `address`."""
        self._url = url
        self._address = address
        self._connect = connect

    async def check(self, revisions: Sequence[str]) -> None:
        """Raise DatabaseUnusable for a server that is unreachable or too old, a database of another program or version."""
        connection = await self._connect_or_explain()
        try:
            await self._check_revision(connection, revisions)
        finally:
            await connection.close()

    async def _connect_or_explain(self) -> Any:
        try:
            connection = await self._connect()
        except asyncpg.InvalidPasswordError as error:
            raise DatabaseUnusable(f"{self._address} rejects the user or password of database_url: {error}") from error
        except asyncpg.InvalidCatalogNameError as error:
            raise DatabaseUnusable(
                f"the server of {self._address} has no such database: create it (createdb), or correct database_url"
            ) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise DatabaseUnusable(
                f"{self._address} cannot be reached ({reason}): start PostgreSQL, or correct database_url"
            ) from error
        if connection.get_server_version().major < OLDEST_SERVER:
            await connection.close()
            raise DatabaseUnusable(
                f"{self._address} is PostgreSQL {connection.get_server_version().major}: version {OLDEST_SERVER} or newer is needed"
            )
        return connection

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
        connection = await self._connect_or_explain()
        try:
            await connection.execute("SET lock_timeout = 0")  # another server may be migrating
            await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK, timeout=MIGRATION_TIMEOUT_S)
            revisions = migrations.revisions()
            current = await self._check_revision(connection, revisions)
            if current != revisions[-1]:
                await self._require_permission(connection)
                await self._upgrade(is_empty=current is None)
        finally:
            await connection.close()

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
