"""`invokeclone models list | install | delete`: manage the models of a root without a server."""

import argparse
import asyncio
import sys

from invokeclone.cli import model_installs
from invokeclone.cli.command_settings import settings_for
from invokeclone.cli.main import CommandError
from invokeclone.cli.resources import open_resources
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import changes, store
from invokeclone.models.records.guard import Guard


def run(arguments: argparse.Namespace) -> int:
    """Run the action of the arguments; return the exit code."""
    settings = settings_for(arguments, level="warning", uses=("database", "models"))
    actions = {"list": _list, "install": _install, "delete": _delete}
    return asyncio.run(actions[arguments.action](settings, arguments))


async def find(resources: Resources, name: str) -> ModelConfig | None:
    """Return the model with this key or, failing that, this name; None if there is none."""
    async with resources.database.read() as connection:
        records = await store.search(connection)
    return next((m for m in records if m.key == name), None) or next((m for m in records if m.name == name), None)


async def _list(settings: Settings, _arguments: argparse.Namespace) -> int:
    async with open_resources(settings, with_embedded_model=True) as resources, resources.database.read() as connection:
        rows = [(m.name, str(m.base), str(m.type), str(m.format), m.key) for m in await store.search(connection)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        sys.stdout.write("  ".join([*cells, row[4]]) + "\n")
    return 0


async def _install(settings: Settings, arguments: argparse.Namespace) -> int:
    async with open_resources(settings, with_embedded_model=True) as resources:
        return await model_installs.install(resources, arguments.source, inplace=arguments.inplace, move=arguments.move)


async def _delete(settings: Settings, arguments: argparse.Namespace) -> int:
    async with open_resources(settings, with_embedded_model=True) as resources:
        model = await find(resources, arguments.key)
        if model is None:
            raise CommandError(f"no such model: {arguments.key}")
        await changes.remove(resources, Guard(), model.key)
    sys.stdout.write(f"deleted {model.name}\n")
    return 0
