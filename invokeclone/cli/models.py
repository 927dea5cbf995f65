"""`invokeclone models list | install | delete`: manage the models of a root without a server."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from invokeclone.cli import model_installs
from invokeclone.cli.command_settings import settings_for
from invokeclone.cli.main import CommandError
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import open_database
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.install import embedded_model
from invokeclone.models.records import changes, store
from invokeclone.models.records.guard import Guard


def run(arguments: argparse.Namespace) -> int:
    """Run the action of the arguments; return the exit code."""
    settings = settings_for(arguments, level="warning")
    actions = {"list": _list, "install": _install, "delete": _delete}
    return asyncio.run(actions[arguments.action](settings, arguments))


@contextlib.asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Yield resources with a migrated database in which the embedded model is registered."""
    resources = Resources(settings, open_database(settings), Bus())
    try:
        await resources.database.migrate()
        await embedded_model.register_embedded(resources)
        yield resources
    finally:
        await resources.database.close()


async def find(resources: Resources, name: str) -> ModelConfig | None:
    """Return the model with this key or, failing that, this name; None if there is none."""
    async with resources.database.read() as connection:
        records = await store.search(connection)
    return next((m for m in records if m.key == name), None) or next((m for m in records if m.name == name), None)


async def _list(settings: Settings, _arguments: argparse.Namespace) -> int:
    async with open_resources(settings) as resources, resources.database.read() as connection:
        rows = [(m.name, str(m.base), str(m.type), str(m.format), m.key) for m in await store.search(connection)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        sys.stdout.write("  ".join([*cells, row[4]]) + "\n")
    return 0


async def _install(settings: Settings, arguments: argparse.Namespace) -> int:
    async with open_resources(settings) as resources:
        return await model_installs.install(resources, arguments.source, inplace=arguments.inplace, move=arguments.move)


async def _delete(settings: Settings, arguments: argparse.Namespace) -> int:
    async with open_resources(settings) as resources:
        model = await find(resources, arguments.key)
        if model is None:
            raise CommandError(f"no such model: {arguments.key}")
        await changes.remove(resources, Guard(), model.key)
    sys.stdout.write(f"deleted {model.name}\n")
    return 0
