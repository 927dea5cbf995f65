"""`invokeclone db upgrade`: migrate the database of a root to the newest revision."""

import argparse
import asyncio
import sys

from invokeclone.cli.command_settings import settings_for
from invokeclone.kit.sql import migrations
from invokeclone.kit.sql.database import open_database


def run(arguments: argparse.Namespace) -> int:
    """Migrate the database and print its revision; return 0."""
    settings = settings_for(arguments, level="warning")

    async def upgrade() -> None:
        database = open_database(settings)
        await database.migrate()
        await database.close()

    asyncio.run(upgrade())
    sys.stdout.write(f"{settings.database_path} is at revision {migrations.current(settings.database_path)}\n")
    return 0
