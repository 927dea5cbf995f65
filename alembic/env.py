"""What Alembic runs: opens the database it was given and applies the scripts to it."""

from pathlib import Path

from sqlalchemy import create_engine

from alembic import context
from invokeclone.tables import metadata


def database() -> Path:
    """Return the file to migrate: handed in by the application, or `-x database=FILE` on the command line."""
    given = context.config.attributes.get("database") or context.get_x_argument(as_dictionary=True).get("database")
    if given is None:
        raise SystemExit("which database? alembic -x database=FILE …")
    return Path(given)


def run() -> None:
    """Apply the migrations over one connection, each in a transaction of its own."""
    engine = create_engine(f"sqlite:///{database()}")
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            render_as_batch=True,
            transaction_per_migration=True,
            compare_type=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
