"""Copies of local models on their way into the models folder. Every function blocks.

A model is copied to a hidden folder; once it is complete and examined, one rename makes it `<models>/<key>`. Until its
record is inserted, the copy contains a marker file, by which the next start recognizes and removes it after a crash.
The source stays as it is.
"""

import contextlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from invokeclone.kit.files import copies, paths
from invokeclone.kit.files.copies import Checkpoint, SourceFile
from invokeclone.kit.files.storage import safe_join
from invokeclone.kit.process import processes
from invokeclone.models.errors import DuplicateModelException, InvalidModel
from invokeclone.models.records import placement

MARKER = ".unfinished"


@dataclass(frozen=True)
class StagedModel:
    """A complete copy of the model at `source`, in a hidden folder."""

    source: Path
    files: Sequence[SourceFile]
    path: Path


def stage(models: Path, source: Path, key: str, checkpoint: Checkpoint, *, share: bool = False) -> StagedModel:
    """Copy the model at `source` to a hidden folder inside the models folder.

    The copy is a clone, or a hard link, or its bytes are copied; with `share`, links are preferred. Raises
    InvalidModel, OSError, and the errors of `copies`, leaving nothing behind.
    """
    files = copies.list_files(source)
    folder = placement.scratch_folder(models, key)
    path = folder / source.name
    try:
        folder.mkdir()
        marker = path / MARKER if source.is_dir() else folder / MARKER
        marker.parent.mkdir(exist_ok=True)
        marker.write_text(str(os.getpid()))
        ways = (copies.link, copies.clone) if share else (copies.clone, copies.link)
        copies.copy_files(files, marker.parent, ways, checkpoint)
    except FileNotFoundError as error:
        paths.erase(folder)
        raise InvalidModel(f"{source} was removed or renamed while it was copied: {error}") from error
    except BaseException:
        paths.erase(folder)
        raise
    return StagedModel(source, files, path)


def publish(models: Path, staged: StagedModel, key: str) -> Path:
    """Rename a staged model to `<models>/<key>`, and return its path. Raises DuplicateModelException, OSError."""
    folder = safe_join(models, key)
    if os.path.lexists(folder):
        raise DuplicateModelException(f"the models folder has an entry {key} already")
    if not staged.path.is_dir():
        staged.path.parent.rename(folder)
        return folder / staged.path.name
    staged.path.rename(folder)
    with contextlib.suppress(OSError):
        staged.path.parent.rmdir()
    return folder


def confirm(models: Path, key: str) -> None:
    """Remove the marker of a model whose record has been inserted. Raises OSError."""
    (models / key / MARKER).unlink(missing_ok=True)


def discard(models: Path, staged: StagedModel, key: str) -> None:
    """Remove a staged or published model without a record. Raises OSError."""
    if staged.path.parent.exists():
        paths.erase(staged.path.parent)
    if _owner(models / key / MARKER) == str(os.getpid()):
        paths.erase(models / key)


def remove_abandoned(models: Path, registered_keys: Collection[str]) -> None:
    """Remove the models that ended processes have published without inserting a record.

    This process must not be installing any.
    """
    for marker in models.glob(f"*/{MARKER}"):
        pid = _owner(marker)
        if marker.parent.is_symlink() or pid is None or (pid != str(os.getpid()) and processes.is_running(pid)):
            continue
        if marker.parent.name in registered_keys:
            marker.unlink(missing_ok=True)
        else:
            paths.erase(marker.parent)


def _owner(marker: Path) -> str | None:
    """Return the id of the process that wrote a marker, or None if there is no valid one."""
    try:
        text = marker.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return text if text.isdecimal() else None
