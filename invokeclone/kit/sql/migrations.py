"""Alembic migrations: current and newest revision of the schema, and upgrades.

Revisions are files `NNNN_what.py` in the top-level `alembic/versions` (in a wheel: `invokeclone/migrations/versions`)
and the number is their id, so the newest one is known without importing Alembic, which takes a third of a second.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import invokeclone

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

BEFORE_POSTGRES = "0017"
"""The revision that an empty PostgreSQL database counts as: its schema is made by the one after it."""


def folder() -> Path:
    """Return the folder of the migration scripts.

    It is beside the package in a checkout, inside it when installed from a wheel.
    """
    package = Path(invokeclone.__file__).resolve().parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "alembic"


def head() -> str:
    """Return the id of the newest revision."""
    return revisions()[-1]


def revisions() -> list[str]:
    """Return the ids of all revisions, the oldest first."""
    return sorted(file.name.split("_")[0] for file in (folder() / "versions").glob("[0-9]*_*.py"))


def current(database: Path) -> str | None:
    """Return the revision of the file, None for a new one."""
    if not database.exists():
        return None
    with closing(sqlite3.connect(database)) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            return None
    return str(row[0]) if row else None


def upgrade(database: Path, revision: str = "head") -> None:
    """Upgrade the file to `revision`, each step in a transaction."""
    from alembic import command

    command.upgrade(_config(database=database), revision)


async def upgrade_postgres(connection: "AsyncConnection", *, is_empty: bool) -> None:
    """Upgrade a PostgreSQL database to the newest revision inside the transaction of `connection`."""

    def run(synchronous: "Connection") -> None:
        from alembic import command

        config = _config(connection=synchronous)
        if is_empty:
            command.stamp(config, BEFORE_POSTGRES)
        command.upgrade(config, "head")

    await connection.run_sync(run)


def _config(**attributes: Any) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    config.attributes.update(attributes)
    return config
