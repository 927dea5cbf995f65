"""Moving the files of images so that they are never nowhere: first both places hold them, then the old one is cleared.

Blocking; it knows no records. A file is linked, or copied where the file system knows no links.
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
    """Tell whether a subfolder leads nowhere else; names that were imported may be odd."""
    path = PurePosixPath(subfolder)
    return not path.is_absolute() and ".." not in path.parts


def exists(settings: Settings, location: ImageLocation) -> bool:
    """Tell whether the picture lies there."""
    return files.full_path(settings, location).is_file()


def duplicate(settings: Settings, origin: ImageLocation, target: ImageLocation) -> bool:
    """Have the files of `origin` at `target` too; false when there is no picture. Raises OSError with nothing half-written."""
    if not exists(settings, origin):
        return False
    with contextlib.suppress(FileNotFoundError):  # a thumbnail is made anew when it is asked for
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
    except OSError:  # no links here, or not so many, or to another disk
        shutil.copyfile(origin, target)
        with target.open("rb+") as copy:
            os.fsync(copy.fileno())


def settle(settings: Settings, subfolders: Iterable[str]) -> None:
    """Wait until the disk has the names of new files, so that not even a power cut loses both places."""
    for path in _folders(settings, subfolders):
        if os.name == "posix" and path.is_dir():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def clear(settings: Settings, locations: list[ImageLocation]) -> list[ImageLocation]:
    """Remove files that are elsewhere by now; returns those that could not be removed."""
    return files.remove(settings, locations)


def prune(settings: Settings, subfolders: Iterable[str]) -> None:
    """Remove folders that are empty now, and those around them."""
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
