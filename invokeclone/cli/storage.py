"""`invokeclone storage copy | orphans`: copy images and videos to another storage; find files without a record."""

import argparse
import asyncio
import sys

from tqdm import tqdm

from invokeclone.cli.command_settings import settings_for
from invokeclone.cli.main import CommandError
from invokeclone.cli.resources import check_exists, open_resources
from invokeclone.cli.server_environment import Data
from invokeclone.images import orphans
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.storage import addresses
from invokeclone.kit.storage.addresses import STYLE_PRESETS, WORKFLOW_THUMBNAILS
from invokeclone.kit.storage.copies import CopyProgress, copy_all
from invokeclone.kit.storage.threads import in_storage_thread
from invokeclone.presets import store as presets
from invokeclone.workflows import store as workflows

FAILED = 1
RECORD_IMAGES = {STYLE_PRESETS: presets.with_image, WORKFLOW_THUMBNAILS: workflows.with_thumbnail}


def run(arguments: argparse.Namespace) -> int:
    """Run the action of the arguments; return the exit code."""
    if arguments.action == "copy":
        uses: tuple[Data, ...] = () if arguments.source else ("images",)
        return _copy(settings_for(arguments, level="warning", uses=uses), arguments)
    settings = settings_for(arguments, level="warning", uses=("database", "images"))
    return asyncio.run(_list_orphans(settings, delete=arguments.delete))


def _copy(settings: Settings, arguments: argparse.Namespace) -> int:
    """Copy and print how many files were copied."""
    source = addresses.open_storage(_at(settings, arguments.source) if arguments.source else settings)
    target_settings = _at(settings, arguments.target)
    target = addresses.open_storage(target_settings)
    addresses.check(target_settings, target)
    with tqdm(unit=" files", file=sys.stderr, leave=False, disable=None) as bar:

        def show(progress: CopyProgress) -> None:
            bar.update(progress.copied + progress.equal + progress.missing - bar.n)

        total = copy_all(source, target, show)
    sys.stdout.write(
        f"{total.copied} files ({total.copied_bytes / 1e6:.1f} MB) copied to {target.address}, "
        f"{total.equal} were there already\n"
    )
    return 0


def _at(settings: Settings, address: str) -> Settings:
    return settings.model_copy(update={"storage_url": address})


async def _list_orphans(settings: Settings, *, delete: bool) -> int:
    """Print the key of each file without a record, and `delete` them."""
    check_exists(settings)
    async with open_resources(settings) as resources:
        async for keys in orphans.find(resources, RECORD_IMAGES):
            sys.stdout.writelines(f"{key}\n" for key in keys)
            if delete and (failed := await in_storage_thread(resources.storage.delete, keys)):
                key, error = next(iter(failed.items()))
                raise CommandError(f"{len(failed)} files could not be deleted, such as {key}: {error.strerror}", FAILED)
    return 0
