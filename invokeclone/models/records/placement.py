"""Where models lie: recorded paths, moving a model into the models folder, removing one from it.

It knows folders and refuses to know what is in the files. Every function blocks; call them in a thread.
"""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from invokeclone.kit.files import paths
from invokeclone.kit.files.storage import safe_join
from invokeclone.kit.process import processes
from invokeclone.models.errors import DuplicateModelException, InvalidModel

PICTURES = "model_images"
_COPYING = ".copying_"


def absolute(models: Path, recorded: str) -> Path:
    """Return the place that a record's `path` means: relative ones are taken from the models folder."""
    return models / recorded


def reserved(models: Path, recorded: Mapping[str, str]) -> list[Path]:
    """Return the files and folders of the models folder that belong to records (`recorded`: paths by key) or to their images."""
    places = [models / key for key in recorded] + [absolute(models, path) for path in recorded.values()]
    return [*places, models / PICTURES]


def recorded(models: Path, path: Path) -> str:
    """Return `path` as records have it: relative to the models folder when inside it, otherwise absolute."""
    inside = path.is_relative_to(models) and path != models
    return PurePosixPath(path.relative_to(models) if inside else path).as_posix()


def move_in(models: Path, source: Path, key: str) -> Path:
    """Move the model at `source` into the folder `key` of the models folder, and return where it lies then.

    A file goes to `<key>/<file name>`, the contents of a folder directly into `<key>`. On the same file system that is
    one rename; across file systems a hidden copy is renamed when it is whole, and then the source is removed. A crash
    leaves the source or the target. Raises DuplicateModelException when the folder exists, OSError (disk full, no
    permission) with the source untouched.
    """
    home = safe_join(models, key)
    if home.exists():
        raise DuplicateModelException(f"the models folder has an entry {key} already")
    models.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        _rename_or_copy(source, home, _part(models, key))
        return home
    home.mkdir()
    try:
        _rename_or_copy(source, home / source.name, _part(models, key))
    except BaseException:
        home.rmdir()
        raise
    return home / source.name


def move_back(models: Path, placed: Path, source: Path, key: str) -> None:
    """Undo `move_in`: put what lies at `placed` back to `source`."""
    _rename_or_copy(placed, source, _part(source.parent, key))
    home = models / key
    if home.is_dir():
        home.rmdir()


def _rename_or_copy(source: Path, target: Path, part: Path) -> None:
    try:
        os.rename(source, target)  # noqa: PTH104  (Path.rename would follow the same call; this one says what it is)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    try:
        if source.is_dir():
            shutil.copytree(source, part)
        else:
            shutil.copy2(source, part)
        part.rename(target)
    except BaseException:
        paths.erase(part)
        raise
    paths.erase(source)


def sweep(models: Path) -> None:
    """Remove copies that a crash left half-way: those of this process, which may be moving nothing, and of ended ones."""
    for part in models.glob(f"{_COPYING}*"):
        pid = part.name.removeprefix(_COPYING).partition("_")[0]
        if pid == str(os.getpid()) or not processes.runs(pid):
            paths.erase(part)


def scratch(models: Path, key: str) -> Path:
    """Return a place for a folder that is being written for the model `key`; `sweep` removes it after a crash."""
    models.mkdir(parents=True, exist_ok=True)
    return _part(models, f"new_{key}")


def _part(folder: Path, key: str) -> Path:
    """Return the place for a copy that is not whole yet; its name says which process writes it."""
    return folder / f"{_COPYING}{os.getpid()}_{key}"


def check_movable(models: Path, source: Path, others: list[Path]) -> None:
    """Raise InvalidModel when moving `source` would take along or break one of the registered models at `others`."""
    whole = paths.real(source)
    if paths.real(models).is_relative_to(whole):
        raise InvalidModel(f"{source} holds the models folder")
    for other in map(paths.real, others):
        if other != whole and (other.is_relative_to(whole) or whole.is_relative_to(other)):
            raise InvalidModel(
                f"{source} and the registered model at {other} lie inside each other; install it in place"
            )


def remove(models: Path, path: Path, key: str, others: list[Path]) -> None:
    """Remove the files of the model at `path`, and its folder `<models>/<key>`, if they lie inside the models folder.

    What lies elsewhere stays, and so does anything that one of the registered models at `others` lies in.
    """
    home = models / key
    target = home if path.is_relative_to(home) else path
    if (
        is_inside(models, target)
        and target.name != PICTURES
        and not any(paths.holds(target, other) for other in others)
    ):
        paths.erase(target)


def is_inside(models: Path, path: Path) -> bool:
    """Tell whether `path`, taken as itself even when it is a link, lies inside the models folder."""
    normal = Path(os.path.normpath(path))
    inside = (paths.real(normal.parent) / normal.name).is_relative_to(paths.real(models))
    return inside and paths.real(normal) != paths.real(models)
