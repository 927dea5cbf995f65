"""Paths on disk: resolving links, containment, removal. Every function blocks; call them in a thread."""

import os
import shutil
from pathlib import Path


def real(path: Path) -> Path:
    """Return `path` with links resolved; unlike Path.resolve this never raises."""
    return Path(os.path.realpath(path))


def exists(path: Path) -> bool:
    """Return whether `path` exists and is reachable."""
    try:
        return path.exists()
    except OSError:
        return False


def contains(folder: Path, path: Path) -> bool:
    """Return whether `path` is `folder` or is inside it, lexically or with links resolved."""
    by_name = Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder))
    return by_name or real(path).is_relative_to(real(folder))


def is_utf8(path: Path) -> bool:
    """Return whether `path` is valid UTF-8; other names can be stored neither in JSON nor in the database."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def erase(path: Path) -> None:
    """Remove a file, a link (not its target) or a folder with all its contents."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
