"""Check of download destinations: the download cache, and the models folder except for registered models."""

import os
from collections.abc import Iterable
from pathlib import Path

from invokeclone.downloads import names
from invokeclone.downloads.errors import DestinationRefused, DestinationTaken
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files import paths


def resolve_destination(settings: Settings, text: str, reserved: Iterable[Path]) -> tuple[Path, Path | None]:
    """Return the path of destination `text`, and the same path again if it names a file, else None.

    `text` is relative to the download cache. `reserved` are files and folders that nothing may be written to. Blocking.
    Raises DestinationRefused, DestinationTaken.
    """
    if not text or "\0" in text:
        raise DestinationRefused(f"not a path: {text!r}")
    path = paths.real(settings.download_cache_path / text)
    if not _is_allowed(settings, path):
        raise DestinationRefused(f"{text} is not inside the download cache or the models folder")
    if any(paths.contains(reserved_path, path) for reserved_path in reserved):
        raise DestinationRefused(f"{text} belongs to an installed model; name another folder")
    if path.is_dir() or text.endswith((os.sep, "/")):
        return path, None
    if path.exists():
        raise DestinationTaken(f"the file exists already: {text}")
    if names.safe_name(path.name) != path.name:
        raise DestinationRefused(f"not a valid file name: {path.name!r}")
    return path, path


def _is_allowed(settings: Settings, path: Path) -> bool:
    """Return whether `path` (resolved) is in the download cache or the models folder, except its internal folders."""
    if path.is_relative_to(paths.real(settings.download_cache_path)):
        return True
    models = paths.real(settings.models_path)
    if not path.is_relative_to(models):
        return False
    top_parts = path.relative_to(models).parts[:1]
    return not any(name.startswith((".", "tmpinstall_")) for name in top_parts)
