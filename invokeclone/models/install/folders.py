"""Download folders of installations: creation, removal, and recovery after a crash. Every function blocks."""

import contextlib
import os
import re
import secrets
from pathlib import Path

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files import paths
from invokeclone.kit.files.storage import make_folder, write_file
from invokeclone.kit.process import processes
from invokeclone.models.install.plans import DownloadPlan
from invokeclone.models.records import placement
from invokeclone.models.records.placement import DOWNLOAD_PREFIX

_OWN_NAME = re.compile(rf"{DOWNLOAD_PREFIX}(?P<pid>[0-9]+)_(?P<server>[0-9a-f]{{6}})[0-9a-f]{{6}}\Z")
"""InvokeAI uses the same prefix with other names; its folders are left alone."""
SERVER_FILE = "server_id"
"""File in `db_dir` that has the id of a server on a shared database."""
_TOKEN = ".token"  # noqa: S105  (the file's name)


def server_id(settings: Settings) -> str:
    """Return the id of the server on this root, created by the first call: other servers may share the models' folder."""
    file = settings.database_path.parent / SERVER_FILE
    if not file.exists():
        make_folder(file.parent)
        write_file(file, secrets.token_hex(3).encode())
    return file.read_text("ascii")


def new_folder(models: Path, server: str | None) -> Path:
    """Return the path of a new download folder, not created yet; its name contains the ids of process and server."""
    return models / f"{DOWNLOAD_PREFIX}{os.getpid()}_{server or secrets.token_hex(3)}{secrets.token_hex(3)}"


def is_of_server(name: str, server: str | None) -> bool:
    """Return whether a download folder is one of this server; without an id, there is no other server."""
    match = _OWN_NAME.match(name)
    return server is None or (match is not None and match["server"] == server)


def create(folder: Path, token: str | None) -> None:
    """Create a download folder, and store the access token in it, readable only by the current OS user."""
    folder.mkdir(parents=True, exist_ok=True)
    if token:
        write_file(folder / _TOKEN, token.encode(), 0o600)


def read_token(folder: Path) -> str | None:
    """Return the access token stored in a download folder, or None."""
    try:
        return (folder / _TOKEN).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def erase(folder: Path) -> None:
    """Remove a folder if it exists."""
    if folder.exists():
        paths.erase(folder)


def remove_strays(folder: Path, plan: DownloadPlan) -> None:
    """Remove files from a downloaded model that are not in `plan`, such as those left by a crashed process."""
    if plan.root is None:
        return
    planned = {folder / file.path for file in plan.files}
    for path in list((folder / plan.root).rglob("*")):
        if path not in planned and not path.is_dir():
            path.unlink()


def remove_changed(folder: Path, earlier: DownloadPlan, plan: DownloadPlan) -> None:
    """Remove the downloaded files of an `earlier` plan that are not the same in `plan`."""
    for file in earlier.files:
        if file not in plan.files and file.path != Path():
            (folder / file.path).unlink(missing_ok=True)


def remove_downloads(folder: Path) -> None:
    """Remove everything from a download folder but the access token."""
    for entry in list(folder.iterdir()):
        if entry.name != _TOKEN:
            paths.erase(entry)


def remove_abandoned(models: Path, needed: set[str], server: str | None) -> None:
    """Remove the download folders of this server that are not `needed` and not of another running process."""
    for folder in models.glob(f"{DOWNLOAD_PREFIX}*"):
        match = _OWN_NAME.match(folder.name)
        if match is None or folder.name in needed or not is_of_server(folder.name, server):
            continue
        if match["pid"] == str(os.getpid()) or not processes.is_running(match["pid"]):
            with contextlib.suppress(OSError):
                paths.erase(folder)


def restore_downloads(models: Path, key: str, folder: Path, plan: DownloadPlan) -> None:
    """Undo a crashed registration: move downloaded files from the folder of model `key` back to `folder`."""
    model_folder = models / key
    if plan.root is None or not model_folder.is_dir():
        return
    single = [file.path for file in plan.files] == [plan.root]
    if (folder / plan.root).exists() or not _has_files(model_folder, plan, single=single):
        _remove_empty(model_folder)
        return
    folder.mkdir(exist_ok=True)
    placement.move_back(models, model_folder / plan.root if single else model_folder, folder / plan.root, key)


def _has_files(model_folder: Path, plan: DownloadPlan, *, single: bool) -> bool:
    """Return whether a folder has every file of a plan, with the sizes in the plan."""
    assert plan.root is not None
    for file in plan.files:
        path = model_folder / (file.path if single else file.path.relative_to(plan.root))
        if not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
            return False
    return True


def _remove_empty(model_folder: Path) -> None:
    """Remove a model's folder if it is empty."""
    with contextlib.suppress(OSError):
        model_folder.rmdir()
