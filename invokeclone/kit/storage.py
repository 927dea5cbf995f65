"""Files that are either whole or not there; it knows paths and bytes, and nothing of what is in them."""

import contextlib
import os
import secrets
from pathlib import Path

from invokeclone.kit.errors import BadRequest


def write_file(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Write `data` to `path` so that a crash leaves the old file, the new one or a stray `.part`, never half a file.

    Missing folders are made; `mode` is what the file may allow, less the umask. Raises OSError (disk full, no permission)
    with nothing left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


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
