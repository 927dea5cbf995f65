"""Atomic file writes, folders and permissions, joining paths safely."""

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
    """Write `data` to `path` atomically.

    A crash leaves the old file, the new one or a stray `.part`, never a partial file. Creates missing folders. The
    permissions of the file are `mode` restricted by its folder and the umask. Raises OSError (disk full, no permission)
    after removing the temporary file.
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
    """Open a new file for writing, with `mode` restricted by its folder and the umask; raises FileExistsError."""
    allowed = mode & path.parent.stat().st_mode
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, allowed))


def make_folder(path: Path) -> None:
    """Create a folder and missing parents, each with the permissions of the folder around it and the umask."""
    try:
        path.mkdir(mode=path.parent.stat().st_mode & ALL_PERMISSIONS, exist_ok=True)
    except FileNotFoundError:
        if path.parent == path:
            raise
        make_folder(path.parent)
        make_folder(path)


def make_private_folder(path: Path) -> None:
    """Create a folder for its owner only; an existing folder is left unchanged because others may share it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=OWNER_FOLDER_MODE, exist_ok=True)


def restrict(path: Path) -> bool:
    """Remove group and other permissions; return whether there were any. A file of another owner is left unchanged."""
    try:
        excess = stat.S_IMODE(path.stat().st_mode) & ~OWNER_FILE_MODE
        if excess:
            path.chmod(OWNER_FILE_MODE)
    except (FileNotFoundError, PermissionError):
        return False
    return bool(excess)


def remove_file(path: Path) -> None:
    """Remove the file at `path` if it exists."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def safe_join(root: Path, name: str) -> Path:
    """Return `root/name`; raises BadRequest for a path outside `root`, an empty `name`, or a NUL in it."""
    if not name or "\0" in name:
        raise BadRequest(f"not a file name: {name!r}")
    base = root.resolve()
    path = (base / name).resolve()
    if path == base or not path.is_relative_to(base):
        raise BadRequest(f"not in the folder: {name!r}")
    return path
