"""Files that are either whole or not there; it knows paths and bytes, and nothing of what is in them."""

import contextlib
import os
import secrets
import stat
from pathlib import Path
from typing import BinaryIO

from invokeclone.kit.errors import BadRequest

OWNER_FILE_MODE = 0o600
OWNER_FOLDER_MODE = 0o700
ALL_PERMISSIONS = 0o777


def write_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write `data` to `path` so that a crash leaves the old file, the new one or a stray `.part`, never half a file.

    Missing folders are made; the file allows no more than `mode`, its folder and the umask do. Raises OSError (disk full, no
    permission) with nothing left behind.
    """
    make_folder(path.parent)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with create(part, mode) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def create(path: Path, mode: int = 0o666) -> BinaryIO:
    """Open a new file for writing that allows no more than `mode`, its folder and the umask do; raises FileExistsError."""
    allowed = mode & path.parent.stat().st_mode
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, allowed))


def make_folder(path: Path) -> None:
    """Make a folder and what is missing above it, each allowing no more than the folder around it and the umask do."""
    try:
        path.mkdir(mode=path.parent.stat().st_mode & ALL_PERMISSIONS, exist_ok=True)
    except FileNotFoundError:
        if path.parent == path:
            raise
        make_folder(path.parent)
        make_folder(path)


def make_private_folder(path: Path) -> None:
    """Make a folder that only the owner may enter; one that is there stays as it is, as others may share it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=OWNER_FOLDER_MODE, exist_ok=True)


def restrict(path: Path) -> bool:
    """Take a file's rights from everybody but its owner; return whether there were any. A file of another owner stays as it is."""
    try:
        excess = stat.S_IMODE(path.stat().st_mode) & ~OWNER_FILE_MODE
        if excess:
            path.chmod(OWNER_FILE_MODE)
    except (FileNotFoundError, PermissionError):
        return False
    return bool(excess)


def remove_file(path: Path) -> None:
    """Remove the file at `path`; one that is not there is fine."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def safe_join(root: Path, name: str) -> Path:
    """Return `root/name`; raises BadRequest when that would lie outside `root` or `name` is empty or holds a NUL."""
    if not name or "\0" in name:
        raise BadRequest(f"not a file name: {name!r}")
    base = root.resolve()
    path = (base / name).resolve()
    if path == base or not path.is_relative_to(base):
        raise BadRequest(f"not inside the folder: {name!r}")
    return path
