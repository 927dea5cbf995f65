"""Where somebody may have a file downloaded to: into the download cache or the models folder, and into no model's own place."""

import asyncio
import os
from pathlib import Path

from invokeclone.kit.resources import Resources
from invokeclone.kit.settings import Settings
from invokeclone.models import placement, store
from invokeclone.models.download import names
from invokeclone.models.download.errors import DestinationRefused, DestinationTaken


async def destination(resources: Resources, text: str) -> tuple[Path, Path | None]:
    """Return the folder or file that `text` means, and the file once more if it is one; relative to the download cache.

    Raises DestinationRefused, DestinationTaken.
    """
    async with resources.database.read() as connection:
        recorded = await store.paths(connection)
    models = resources.settings.models_path
    taken = [models / key for key in recorded] + [placement.absolute(models, path) for path in recorded.values()]
    return await asyncio.to_thread(_checked, resources.settings, text, taken)


def _checked(settings: Settings, text: str, taken: list[Path]) -> tuple[Path, Path | None]:
    if not text or "\0" in text:
        raise DestinationRefused(f"not a path: {text!r}")
    path = placement.real(settings.download_cache_path / text)
    if not _allowed(settings, path):
        raise DestinationRefused(f"{text} is not inside the download cache or the models folder")
    if any(placement.holds(model, path) for model in taken):
        raise DestinationRefused(f"{text} belongs to an installed model")
    if path.is_dir() or text.endswith((os.sep, "/")):
        return path, None
    if path.exists():
        raise DestinationTaken(f"there is a file already: {text}")
    if names.safe_name(path.name) != path.name:
        raise DestinationRefused(f"not a name for a file: {path.name!r}")
    return path, path


def _allowed(settings: Settings, path: Path) -> bool:
    """Tell whether the real `path` is in the download cache, or in the models folder and not in a place of our own there."""
    if path.is_relative_to(placement.real(settings.download_cache_path)):
        return True
    models = placement.real(settings.models_path)
    if not path.is_relative_to(models):
        return False
    first = path.relative_to(models).parts[:1]
    return not any(name.startswith((".", "tmpinstall_")) or name == placement.PICTURES for name in first)
