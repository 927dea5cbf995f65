"""The database and storage of a root, for commands without a server."""

import contextlib
import sys
from collections.abc import AsyncIterator

from invokeclone.cli.main import CommandError
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import open_database


@contextlib.asynccontextmanager
async def open_resources(settings: Settings, *, with_embedded_model: bool = False) -> AsyncIterator[Resources]:
    """Yield resources with a migrated database, in which the embedded model is registered if asked for.

    A new database file is reported, as the root may be another one than intended.
    """
    resources = Resources(settings, open_database(settings), Bus())
    is_new = not resources.database.is_shared and not settings.database_path.exists()
    try:
        await resources.database.migrate()
        if is_new:
            sys.stderr.write(f"invokeclone: {settings.database_path} is a new database\n")
        if with_embedded_model:
            from invokeclone.models.install import embedded_model

            await embedded_model.register_embedded(resources)
        yield resources
    finally:
        await resources.database.close()


def check_exists(settings: Settings) -> None:
    """Raise CommandError if the settings name a database file that does not exist: a command reads nothing from it."""
    if settings.database_url is None and not settings.database_path.exists():
        raise CommandError(f"there is no database {settings.database_path}; check --root and db_dir")
