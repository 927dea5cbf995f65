"""Copies of files and folders: clones or hard links where the file system supports them, else bytes.

Links are resolved, so that a copy contains files only. Every function blocks; call them in a thread.
"""

import contextlib
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from invokeclone.kit.errors import BadRequest, Conflict, InsufficientStorage
from invokeclone.kit.files import paths

MIN_FREE_BYTES = 64 * 1024 * 1024
"""Disk space in bytes that a copy leaves free."""
MAX_FILES = 20_000
"""Files of a source, and folders of one, counted as often as links lead to them."""
_MAX_DEPTH = 20
_CHUNK = 8 * 1024 * 1024
_FICLONE = 0x40049409
"""Linux's ioctl that clones a file: a copy that shares its blocks until either file is written to."""


class BrokenLink(BadRequest):
    """A file of the source is a link to a file that does not exist or cannot be reached."""


class TooManyFiles(BadRequest):
    """The source has more files, or deeper folders, than anything that is copied here."""


class SourceChanged(Conflict):
    """A file was changed while it was copied."""


class DiskTooFull(InsufficientStorage):
    """The copy does not fit on the disk."""


Checkpoint = Callable[[int, int], None]
"""Called with the copied and the total bytes; raises to abort the copy."""
Way = Callable[[Path, Path], bool]
"""Creates a file without copying bytes; returns False if that is not possible here."""


@dataclass(frozen=True)
class SourceFile:
    """A file to be copied: its path in the source, its path with links resolved, and its state."""

    relative: Path
    path: Path
    state: tuple[int, ...]
    """Device, inode, size and modification time."""

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.state[2]


def list_files(source: Path) -> list[SourceFile]:
    """Return the files of a folder without hidden ones, or the file itself. Links are resolved; loops are skipped.

    Raises BrokenLink, TooManyFiles, OSError.
    """
    files: list[SourceFile] = []
    if source.is_dir():
        _list(source, Path(), (), files, itertools.count(1))
    else:
        _append(source, Path(source.name), files)
    return files


def _list(
    folder: Path,
    relative: Path,
    parents: tuple[tuple[int, int], ...],
    files: list[SourceFile],
    numbers: Iterator[int],
) -> None:
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in parents:
        return
    if len(parents) >= _MAX_DEPTH:
        raise TooManyFiles(f"{folder} is more than {_MAX_DEPTH} folders deep")
    if next(numbers) > MAX_FILES:
        raise TooManyFiles(f"there are more than {MAX_FILES} folders; do links lead to some of them again and again?")
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        try:
            is_folder = path.is_dir()
        except (OSError, RuntimeError):  # a link to itself
            is_folder = False
        if is_folder:
            _list(path, relative / path.name, (*parents, identity), files, numbers)
        else:
            _append(path, relative / path.name, files)


def _append(path: Path, relative: Path, files: list[SourceFile]) -> None:
    try:
        status = path.stat()
    except (OSError, RuntimeError) as error:
        if path.is_symlink():
            raise BrokenLink(f"{path} is a link to a file that is missing: {_target(path)}") from error
        raise
    if not stat.S_ISREG(status.st_mode):
        return
    if len(files) >= MAX_FILES:
        raise TooManyFiles(f"there are more than {MAX_FILES} files; is this the right folder?")
    files.append(SourceFile(relative, paths.real(path), _state(status)))


def _state(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return "unknown"


def clone(source: Path, target: Path) -> bool:
    """Create `target` as a clone of `source`, which stays independent of it; False if the file system cannot do this."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    with source.open("rb") as original, target.open("xb") as copy:
        try:
            fcntl.ioctl(copy.fileno(), _FICLONE, original.fileno())
        except OSError:
            pass
        else:
            return True
    target.unlink()
    return False


def link(source: Path, target: Path) -> bool:
    """Create `target` as a hard link to `source`; False if the file system or its permissions do not allow this."""
    try:
        os.link(source, target)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:
        return False
    return True


def copy_files(files: Sequence[SourceFile], folder: Path, ways: Sequence[Way], checkpoint: Checkpoint) -> None:
    """Create every file under `folder`, by the first of `ways` that is possible, else by copying its bytes.

    Raises DiskTooFull before any bytes are copied, SourceChanged, OSError (FileExistsError if a file exists), and what
    `checkpoint` raises. After an error the caller removes `folder`.
    """
    copied = []
    for file in files:
        checkpoint(0, 0)
        target = folder / file.relative
        target.parent.mkdir(parents=True, exist_ok=True)
        if not any(way(file.path, target) for way in ways):
            copied.append(file)
    total = sum(file.size for file in copied)
    _check_space(folder, total)
    copied_bytes = 0
    for file in copied:
        _copy_bytes(file, folder / file.relative, lambda count, before=copied_bytes: checkpoint(before + count, total))  # type: ignore[misc]
        copied_bytes += file.size


def _check_space(folder: Path, size: int) -> None:
    if size and size + MIN_FREE_BYTES > (free := shutil.disk_usage(folder).free):
        raise DiskTooFull(f"{size} bytes do not fit on the disk of {folder.parent}: {free} bytes are free")


def _copy_bytes(file: SourceFile, target: Path, checkpoint: Callable[[int], None]) -> None:
    copied_bytes = 0
    with file.path.open("rb") as source, target.open("xb") as copy:
        while chunk := source.read(_CHUNK):
            copy.write(chunk)
            copied_bytes += len(chunk)
            checkpoint(copied_bytes)
        copy.flush()
        os.fsync(copy.fileno())
        if _state(os.fstat(source.fileno())) != file.state:
            raise SourceChanged(f"{file.path} was changed while it was copied; try again")


def remove_source(source: Path, files: Sequence[SourceFile]) -> None:
    """Remove the files of a source that was copied; everything else in its folders stays, and so do changed files.

    Of links, the link is removed and not its target. Raises OSError, leaving the remaining files.
    """
    if not source.is_dir():
        _remove_unchanged(source, {files[0].state})
        return
    states = {file.relative: file.state for file in files}
    if source.is_symlink():
        source.unlink()
        return
    for parent, folders, names in os.walk(source, topdown=False):
        for name in names:
            path = Path(parent, name)
            if (state := states.get(path.relative_to(source))) is not None:
                _remove_unchanged(path, {state})
        for name in folders:
            path = Path(parent, name)
            relative = path.relative_to(source)
            if path.is_symlink() and any(file.relative.is_relative_to(relative) for file in files):
                path.unlink()
        with contextlib.suppress(OSError):  # not empty
            Path(parent).rmdir()


def _remove_unchanged(path: Path, states: set[tuple[int, ...]]) -> None:
    with contextlib.suppress(FileNotFoundError):
        if _state(path.stat()) in states:
            path.unlink()
