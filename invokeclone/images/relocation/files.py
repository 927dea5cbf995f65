"""Moving image files without a moment of absence: the target is created first, then the origin is removed.

Blocking. Local files are hard-linked, or copied where the file system does not support links; an S3 service copies.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from invokeclone.images import files
from invokeclone.images.relocation.store import Move
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit.storage.protocol import ObjectStorage, StoredFile

ROOTS = ("images", "images/thumbnails")
"""Keys of the folders of images and thumbnails."""


def is_inside(subfolder: str) -> bool:
    """Return whether a subfolder stays inside the image folder; imported records may contain other paths."""
    path = PurePosixPath(subfolder)
    return not path.is_absolute() and ".." not in path.parts


def exists(storage: ObjectStorage, location: ImageLocation) -> bool:
    """Return whether the image file exists at `location`."""
    return StoredFile(storage, files.full_key(location)).exists()


def duplicate(storage: ObjectStorage, origin: ImageLocation, target: ImageLocation) -> bool:
    """Create the files of `origin` at `target` too; false without an image file.

    Raises OSError without partial files.
    """
    if not exists(storage, origin):
        return False
    with contextlib.suppress(FileNotFoundError):  # a missing thumbnail is created on request
        storage.copy(files.thumbnail_key(origin), files.thumbnail_key(target))
    storage.copy(files.full_key(origin), files.full_key(target))
    return True


def duplicate_all(storage: ObjectStorage, moves: Sequence[Move]) -> set[str]:
    """Create the files of images at their targets too; return the names of images without a file."""
    missing = set()
    for move in moves:
        if not duplicate(storage, ImageLocation(move.name, move.origin), ImageLocation(move.name, move.target)):
            missing.add(move.name)
    settle(storage, [move.target for move in moves])
    return missing


def settle(storage: ObjectStorage, subfolders: Iterable[str]) -> None:
    """Sync the folders of new files to disk, so that a power failure cannot lose both copies."""
    for path in _folders(storage, subfolders):
        if os.name == "posix" and path.is_dir():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def clear(storage: ObjectStorage, locations: list[ImageLocation]) -> None:
    """Remove the origins of moved files. Raises PermissionError if some cannot be removed."""
    if failed := files.remove(storage, locations):
        raise PermissionError(
            f"the old files of {len(failed)} images could not be removed, such as {next(iter(failed)).name}"
        )


def find_corrections(storage: ObjectStorage, journal: Sequence[tuple[Move, str | None]]) -> dict[str, tuple[str, str]]:
    """Return the recorded and the right subfolder of images whose records a power failure set back."""
    corrections = {}
    for move, recorded in journal:
        if recorded not in (move.origin, move.target):
            continue
        other = move.target if recorded == move.origin else move.origin
        if not exists(storage, ImageLocation(move.name, recorded)) and exists(storage, ImageLocation(move.name, other)):
            corrections[move.name] = recorded, other
    return corrections


def prune(storage: ObjectStorage, subfolders: Iterable[str]) -> None:
    """Remove empty folders, and their parents if those are empty."""
    roots = _roots(storage)
    for start in _folders(storage, subfolders):
        path = start
        with contextlib.suppress(OSError):
            while path not in roots:
                path.rmdir()
                path = path.parent


def _roots(storage: ObjectStorage) -> list[Path]:
    """Return the folders of images and thumbnails; none of a storage without folders."""
    paths = (storage.local_path(key) for key in ROOTS)
    return [path for path in paths if path is not None]


def _folders(storage: ObjectStorage, subfolders: Iterable[str]) -> Iterator[Path]:
    for subfolder in set(subfolders):
        for root in _roots(storage):
            yield root / subfolder
