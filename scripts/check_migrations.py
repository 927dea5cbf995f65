"""Fail when the migrations, run on an empty database, do not create the schema of tables.py."""

import sys
import tempfile
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from invokeclone.kit.sql import migrations
from invokeclone.tables import metadata


def is_ours(name: str | None, kind: str, _parents: object) -> bool:
    """Exclude the text index: a virtual table, and its internal tables."""
    return not (kind == "table" and (name or "").startswith("images_text"))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "check.db"
        migrations.upgrade(file)
        engine = create_engine(f"sqlite:///{file}")
        with engine.connect() as connection:
            differences = compare_metadata(
                MigrationContext.configure(connection, opts={"compare_type": True, "include_name": is_ours}), metadata
            )
        engine.dispose()
        for difference in differences:
            print(difference)
        if migrations.current(file) != migrations.head():
            print(f"newest revision is {migrations.current(file)}, newest file {migrations.head()}")
            return 1
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
