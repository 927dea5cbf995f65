"""Fail when the migrations, run on an empty database of SQLite or PostgreSQL, do not create the schema of tables.py."""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from invokeclone.kit.sql import migrations
from invokeclone.kit.sql.postgres_database import PostgresDatabase
from invokeclone.tables import metadata

EXPECTED = {
    ("remove_table", "images_trigrams"),  # the text index (images/lists/trigram_search.py)
    ("remove_index", "ix_images_trigrams"),
    (
        "remove_index",
        "ix_queue_counts",
    ),  # instead of a primary key: several rows of a key are summed (queue/bulk_counts.py)
}
"""Differences of PostgreSQL's schema from tables.py that are intended."""


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Exclude SQLite's text index: a virtual table, and its internal tables."""
    return not (kind == "table" and (name or "").startswith("images_text"))


def compare(connection: Connection) -> list[Any]:
    """Return the differences between a database and tables.py."""
    options = {"compare_type": True, "include_name": is_ours}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def check_sqlite() -> list[Any]:
    """Migrate a new file and return what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "check.db"
        migrations.upgrade(file)
        engine = create_engine(f"sqlite:///{file}")
        with engine.connect() as connection:
            differences = compare(connection)
        engine.dispose()
        if migrations.current(file) != migrations.head():
            differences.append(f"newest revision is {migrations.current(file)}, newest file {migrations.head()}")
    return differences


def check_postgres() -> list[Any]:
    """Migrate a new PostgreSQL database and return what is wrong."""
    from tests.postgres import PostgresServer

    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = PostgresServer(folder)
    try:
        differences = asyncio.run(_compare_postgres(server.new_database(migrated=False)))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return [difference for difference in differences if _named(difference) not in EXPECTED]


async def _compare_postgres(address: str) -> list[Any]:
    database = PostgresDatabase(address)
    await database.migrate()
    async with database.read() as connection:
        differences: list[Any] = await connection.run_sync(compare)
    await database.check(migrations.revisions())
    await database.close()
    return differences


def _named(difference: Any) -> tuple[str, str]:
    """Return kind and name of a difference."""
    kind, *subject = difference if isinstance(difference, tuple) else difference[0]
    return kind, str(getattr(subject[0], "name", subject[0]))


def main() -> int:
    differences = [("SQLite", check_sqlite()), ("PostgreSQL", check_postgres())]
    for database, found in differences:
        for difference in found:
            print(f"{database}: {difference}")
    return 1 if any(found for _, found in differences) else 0


if __name__ == "__main__":
    sys.exit(main())
