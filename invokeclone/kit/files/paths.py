"""Paths on disk: where links lead, what lies in what, and removal. Every function blocks; call them in a thread."""

import os
import shutil
from pathlib import Path


def real(path: Path) -> Path:
    """Return `path` without links; unlike Path.resolve this never raises, whatever a record holds."""
    return Path(os.path.realpath(path))


def exists(path: Path) -> bool:
    """Tell whether there is something at `path` that can be reached."""
    try:
        return path.exists()
    except OSError:
        return False


def contains(folder: Path, path: Path) -> bool:
    """Tell whether `path` is `folder` or lies in it, by name or in truth."""
    by_name = Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder))
    return by_name or real(path).is_relative_to(real(folder))


def erase(path: Path) -> None:
    """Remove a file, a link (not what it points to) or a folder with everything in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
