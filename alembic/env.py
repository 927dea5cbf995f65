"""What Alembic runs: opens the database it was given and applies the scripts to it."""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine

from alembic import context
from invokeclone.tables import metadata


def database() -> Path:
    """Return the file to migrate: handed in by the application, or `-x database=FILE` on the command line."""
    given = context.config.attributes.get("database") or context.get_x_argument(as_dictionary=True).get("database")
    if given is None:
        raise SystemExit("which database? alembic -x database=FILE …")
    return Path(given)


def run() -> None:
    """Apply the migrations: to a file each in a transaction of its own, over an open connection in its transaction."""
    connection: Connection | None = context.config.attributes.get("connection")
    if connection is not None:
        _run_over(connection)
        return
    engine = create_engine(f"sqlite:///{database()}")
    with engine.connect() as opened:
        _run_over(opened, render_as_batch=True, transaction_per_migration=True)
    engine.dispose()


def _run_over(connection: Connection, **options: Any) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_type=True, **options)
    with context.begin_transaction():
        context.run_migrations()


run()
