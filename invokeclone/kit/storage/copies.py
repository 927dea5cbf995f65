"""Copying a storage to another one: resumable, verified, a few objects at a time. Blocking."""

import hashlib
import itertools
import secrets
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from invokeclone.kit.files.storage import make_folder
from invokeclone.kit.storage.addresses import AREAS, StorageNotUsable
from invokeclone.kit.storage.protocol import CHUNK_SIZE, ObjectStat, ObjectStorage, StoredFile

WORKERS = 8
WAITING = 4 * WORKERS
"""Objects that are being copied or wait for it; no more are listed meanwhile."""
ATTEMPTS = 2


class CopyProgress(NamedTuple):
    """The objects so far: copied, found to be equal, and missing because they were deleted meanwhile; and the copied bytes."""

    copied: int = 0
    equal: int = 0
    missing: int = 0
    copied_bytes: int = 0


class CopyNotVerified(OSError):
    """An object of the target differs from its source after it was written again."""


def copy_all(
    source: ObjectStorage,
    target: ObjectStorage,
    on_progress: Callable[[CopyProgress], None] = lambda _progress: None,
    areas: Iterable[str] = AREAS,
) -> CopyProgress:
    """Copy every object whose copy is missing or differs, and verify each copy; objects of the target stay otherwise.

    Sizes and MD5 sums are compared, so that a copy that was interrupted continues where it ended. `on_progress` is
    called after each object and may raise to stop. Raises OSError, CopyNotVerified, StorageNotUsable for a storage
    that is copied to itself.
    """
    if source.address == target.address:
        raise StorageNotUsable(f"{source.address} is both the source and the target of the copy")
    total = CopyProgress()
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="copy") as pool:
        waiting: set[Future[CopyProgress]] = set()
        try:
            for stat in itertools.chain.from_iterable(source.list(area) for area in areas):
                waiting.add(pool.submit(_copy, source, target, stat))
                while len(waiting) >= WAITING:
                    total, waiting = _collect(waiting, total, on_progress)
            while waiting:
                total, waiting = _collect(waiting, total, on_progress)
        finally:
            for future in waiting:
                future.cancel()
    return total


def _collect(
    waiting: set[Future[CopyProgress]], total: CopyProgress, on_progress: Callable[[CopyProgress], None]
) -> tuple[CopyProgress, set[Future[CopyProgress]]]:
    """Wait for one object or several, and return the new progress and the objects that are left."""
    finished, left = wait(waiting, return_when=FIRST_COMPLETED)
    for future in finished:
        total = CopyProgress(*map(sum, zip(total, future.result(), strict=True)))
        on_progress(total)
    return total, left


def _copy(source: ObjectStorage, target: ObjectStorage, stat: ObjectStat) -> CopyProgress:
    try:
        if _is_copied(source, target, stat):
            return CopyProgress(equal=1)
        for _ in range(ATTEMPTS):
            _write(source, target, stat)
            if _is_copied(source, target, stat):
                return CopyProgress(copied=1, copied_bytes=stat.size)
    except FileNotFoundError:
        if StoredFile(source, stat.key).exists():
            raise
        return CopyProgress(missing=1)
    raise CopyNotVerified(f"{target.address}/{stat.key} differs from {source.address}/{stat.key} after copying")


def _write(source: ObjectStorage, target: ObjectStorage, stat: ObjectStat) -> None:
    origin, local = StoredFile(source, stat.key), target.local_path(stat.key)
    if stat.size <= CHUNK_SIZE:
        target.write(stat.key, origin.read(), replace=True)
    elif origin.path is not None:
        target.copy_file(stat.key, origin.path)
    else:
        folder = Path(tempfile.gettempdir()) if local is None else local.parent
        make_folder(folder)
        part = folder / f".{secrets.token_hex(8)}.part"
        try:
            origin.fetch(part)
            target.copy_file(stat.key, part)
        finally:
            part.unlink(missing_ok=True)


def _is_copied(source: ObjectStorage, target: ObjectStorage, stat: ObjectStat) -> bool:
    """Compare an object with its copy by size, then by MD5 sum, then by content."""
    try:
        existing = target.stat(stat.key)
    except FileNotFoundError:
        return False
    if stat.size != existing.size:
        return False
    checksum = stat.md5 or _md5(source.chunks(stat.key))
    if checksum == (existing.md5 or _md5(target.chunks(stat.key))):
        return True
    if stat.md5 is None and existing.md5 is None:
        return False
    # What a service reports may be no MD5 sum, for example of encrypted objects.
    pieces = itertools.zip_longest(source.chunks(stat.key), target.chunks(stat.key))
    return all(original == copy for original, copy in pieces)


def _md5(pieces: Iterable[bytes]) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
