"""Moving image files without a moment of absence: the target is created first, then the origin is removed.

Blocking. A file is hard-linked, or copied where the file system does not support links.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from invokeclone.images import files
from invokeclone.images.media_kinds import IMAGES
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.storage import make_folder


def is_inside(subfolder: str) -> bool:
    """Return whether a subfolder stays inside the image folder; imported records may contain other paths."""
    path = PurePosixPath(subfolder)
    return not path.is_absolute() and ".." not in path.parts


def exists(settings: Settings, location: ImageLocation) -> bool:
    """Return whether the image file exists at `location`."""
    return files.full_path(settings, location).is_file()


def duplicate(settings: Settings, origin: ImageLocation, target: ImageLocation) -> bool:
    """Create the files of `origin` at `target` too; false without an image file.

    Raises OSError without partial files.
    """
    if not exists(settings, origin):
        return False
    with contextlib.suppress(FileNotFoundError):  # a missing thumbnail is created on request
        _duplicate(files.thumbnail_path(settings, origin), files.thumbnail_path(settings, target))
    _duplicate(files.full_path(settings, origin), files.full_path(settings, target))
    return True


def _duplicate(origin: Path, target: Path) -> None:
    if target.exists() and target.samefile(origin):
        return
    make_folder(target.parent)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        _link_or_copy(origin, part)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _link_or_copy(origin: Path, target: Path) -> None:
    try:
        os.link(origin, target)
    except FileNotFoundError:
        raise
    except OSError:  # no hard links, too many of them, or another disk
        shutil.copyfile(origin, target)
        with target.open("rb+") as copy:
            os.fsync(copy.fileno())


def settle(settings: Settings, subfolders: Iterable[str]) -> None:
    """Sync the folders of new files to disk, so that a power failure cannot lose both copies."""
    for path in _folders(settings, subfolders):
        if os.name == "posix" and path.is_dir():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def clear(settings: Settings, locations: list[ImageLocation]) -> list[ImageLocation]:
    """Remove the origins of moved files; returns the locations whose removal failed."""
    return files.remove(settings, locations)


def prune(settings: Settings, subfolders: Iterable[str]) -> None:
    """Remove empty folders, and their parents if those are empty."""
    for start in _folders(settings, subfolders):
        path = start
        with contextlib.suppress(OSError):
            while path not in _roots(settings):
                path.rmdir()
                path = path.parent


def _roots(settings: Settings) -> tuple[Path, Path]:
    root = files.folder(settings, IMAGES)
    return root, root / "thumbnails"


def _folders(settings: Settings, subfolders: Iterable[str]) -> Iterator[Path]:
    for subfolder in set(subfolders):
        for root in _roots(settings):
            yield root / subfolder
