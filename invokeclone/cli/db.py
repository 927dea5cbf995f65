"""`invokeclone db`: migrate the database of a root to the newest revision, copy it to another database."""

import argparse
import asyncio
import sys

from invokeclone.cli.command_settings import settings_for
from invokeclone.cli.resources import check_exists
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.root_lock import RootLock
from invokeclone.kit.sql import migrations
from invokeclone.kit.sql.database import open_database


def run(arguments: argparse.Namespace) -> int:
    """Run the action of `arguments`; return 0."""
    settings = settings_for(arguments, level="warning", uses=["database"])
    if arguments.action == "copy":
        return _copy(settings, arguments.to)
    database = open_database(settings)

    async def upgrade() -> None:
        await database.migrate()
        await database.close()

    asyncio.run(upgrade())
    sys.stdout.write(f"{database.address} is at revision {migrations.head()}\n")
    return 0


def _copy(settings: Settings, address: str) -> int:
    """Copy all rows to the database at `address`, while no server runs on the root."""
    from invokeclone.kit.sql.copy_database import copy_database
    from invokeclone.queue.copying import PLAN

    check_exists(settings)
    source, target = open_database(settings), open_database(settings.model_copy(update={"database_url": address}))

    async def copy() -> dict[str, int]:
        try:
            for database in (source, target):
                await database.check(migrations.revisions())
                await database.migrate()
            return await copy_database(source, target, PLAN, _show)
        finally:
            await source.close()
            await target.close()

    lock = RootLock(settings.root)
    lock.acquire()
    try:
        numbers = asyncio.run(copy())
    finally:
        lock.release()
    sys.stdout.write(
        f"{sum(numbers.values())} rows copied and compared: set database_url to {target.address} (with its password)\n"
    )
    return 0


def _show(table: str, rows: int) -> None:
    sys.stderr.write(f"{table}: {rows}\n")
