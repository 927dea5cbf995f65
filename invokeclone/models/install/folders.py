"""The folders that downloads of installations go into: made, matched with their models after a crash, and removed. Every function blocks."""

import contextlib
import os
import secrets
from pathlib import Path

from invokeclone.kit.files import paths
from invokeclone.kit.files.storage import write_file
from invokeclone.kit.process import processes
from invokeclone.models.install.plans import DownloadPlan
from invokeclone.models.records import placement

FOLDER_PREFIX = "tmpinstall_"
_TOKEN = ".token"  # noqa: S105  (the file's name)


def new_folder(models: Path) -> Path:
    """Return a folder for the files of an installation (not made yet); its name says which process it is of."""
    return models / f"{FOLDER_PREFIX}{os.getpid()}_{secrets.token_hex(6)}"


def create(folder: Path, token: str | None) -> None:
    """Make a folder, with the token beside the files for this user of the machine alone."""
    folder.mkdir(parents=True, exist_ok=True)
    if token:
        write_file(folder / _TOKEN, token.encode(), 0o600)


def read_token(folder: Path) -> str | None:
    """Return the token that an installation was given, if any."""
    try:
        return (folder / _TOKEN).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def erase(folder: Path) -> None:
    """Remove a folder, if there is one."""
    if folder.exists():
        paths.erase(folder)


def remove_strays(folder: Path, plan: DownloadPlan) -> None:
    """Remove from the model in a download's folder what a process that died left beside the files of `plan`."""
    if plan.root is None:
        return
    planned = {folder / file.path for file in plan.files}
    for path in list((folder / plan.root).rglob("*")):
        if path not in planned and not path.is_dir():
            path.unlink()


def remove_abandoned(models: Path, needed: set[str]) -> None:
    """Remove folders of installations that nobody goes on with: not `needed`, and of no other running process."""
    for folder in models.glob(f"{FOLDER_PREFIX}*"):
        pid = folder.name.removeprefix(FOLDER_PREFIX).partition("_")[0]
        if folder.name not in needed and (pid == str(os.getpid()) or not processes.is_running(pid)):
            with contextlib.suppress(OSError):
                paths.erase(folder)


def restore_downloads(models: Path, key: str, folder: Path, plan: DownloadPlan) -> None:
    """Bring files back that a server moved to where the model `key` belongs, and died before it wrote the record."""
    model_folder = models / key
    if plan.root is None or not model_folder.is_dir():
        return
    single = [file.path for file in plan.files] == [plan.root]
    if (folder / plan.root).exists() or not _has_files(model_folder, plan, single=single):
        _remove_empty(model_folder)
        return
    folder.mkdir(exist_ok=True)
    placement.move_back(models, model_folder / plan.root if single else model_folder, folder / plan.root, key)


def restore_local(models: Path, key: str, source: Path) -> None:
    """Bring a user's file or folder back to `source` that was moved to where the model `key` belongs, without a record."""
    model_folder = models / key
    if not model_folder.is_dir():
        return
    if source.exists():
        _remove_empty(model_folder)
        return
    single = [entry.name for entry in model_folder.iterdir()] == [source.name] and (
        model_folder / source.name
    ).is_file()
    placement.move_back(models, model_folder / source.name if single else model_folder, source, key)


def _has_files(model_folder: Path, plan: DownloadPlan, *, single: bool) -> bool:
    """Tell whether a folder has every file of a plan, in the size that the plan says."""
    assert plan.root is not None
    for file in plan.files:
        path = model_folder / (file.path if single else file.path.relative_to(plan.root))
        if not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
            return False
    return True


def _remove_empty(model_folder: Path) -> None:
    """Remove a folder that was made for a model which never came into it."""
    with contextlib.suppress(OSError):
        model_folder.rmdir()
