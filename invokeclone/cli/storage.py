"""`invokeclone storage copy`: copy images and videos of a root to another storage, resumable and verified."""

import argparse
import sys

from tqdm import tqdm

from invokeclone.cli.command_settings import settings_for
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.storage import addresses
from invokeclone.kit.storage.copies import CopyProgress, copy_all


def run(arguments: argparse.Namespace) -> int:
    """Copy and print how many objects were copied; return 0."""
    settings = settings_for(arguments, level="warning")
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
