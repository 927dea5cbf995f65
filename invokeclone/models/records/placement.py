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

IMAGES_FOLDER = "model_images"
_COPY_PREFIX = ".copying_"


def to_absolute_path(models: Path, record_path: str) -> Path:
    """Return the place that a record's `path` means: relative ones are taken from the models folder."""
    return models / record_path


def all_model_paths(models: Path, recorded_paths: Mapping[str, str]) -> list[Path]:
    """Return the files and folders of the models folder that belong to records (`recorded`: paths by key) or to their images."""
    model_paths = [models / key for key in recorded_paths] + [
        to_absolute_path(models, path) for path in recorded_paths.values()
    ]
    return [*model_paths, models / IMAGES_FOLDER]


def to_record_path(models: Path, path: Path) -> str:
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
    folder = safe_join(models, key)
    if folder.exists():
        raise DuplicateModelException(f"the models folder has an entry {key} already")
    models.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        _rename_or_copy(source, folder, _partial_copy(models, key))
        return folder
    folder.mkdir()
    try:
        _rename_or_copy(source, folder / source.name, _partial_copy(models, key))
    except BaseException:
        folder.rmdir()
        raise
    return folder / source.name


def move_back(models: Path, location: Path, source: Path, key: str) -> None:
    """Undo `move_in`: put what lies at `placed` back to `source`."""
    _rename_or_copy(location, source, _partial_copy(source.parent, key))
    folder = models / key
    if folder.is_dir():
        folder.rmdir()


def _rename_or_copy(source: Path, target: Path, partial_copy: Path) -> None:
    try:
        os.rename(source, target)  # noqa: PTH104  (Path.rename would follow the same call; this one says what it is)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    try:
        if source.is_dir():
            shutil.copytree(source, partial_copy)
        else:
            shutil.copy2(source, partial_copy)
        partial_copy.rename(target)
    except BaseException:
        paths.erase(partial_copy)
        raise
    paths.erase(source)


def remove_abandoned_copies(models: Path) -> None:
    """Remove copies that a crash left half-way: those of this process, which may be moving nothing, and of ended ones."""
    for partial_copy in models.glob(f"{_COPY_PREFIX}*"):
        pid = partial_copy.name.removeprefix(_COPY_PREFIX).partition("_")[0]
        if pid == str(os.getpid()) or not processes.is_running(pid):
            paths.erase(partial_copy)


def scratch_folder(models: Path, key: str) -> Path:
    """Return a place for a folder that is being written for the model `key`; `sweep` removes it after a crash."""
    models.mkdir(parents=True, exist_ok=True)
    return _partial_copy(models, f"new_{key}")


def _partial_copy(folder: Path, key: str) -> Path:
    """Return the place for a copy that is not whole yet; its name says which process writes it."""
    return folder / f"{_COPY_PREFIX}{os.getpid()}_{key}"


def check_movable(models: Path, source: Path, other_models: list[Path]) -> None:
    """Raise InvalidModel when moving `source` would take along or break one of the registered models at `others`."""
    real_source = paths.real(source)
    if paths.real(models).is_relative_to(real_source):
        raise InvalidModel(f"{source} holds the models folder")
    for other in map(paths.real, other_models):
        if other != real_source and (other.is_relative_to(real_source) or real_source.is_relative_to(other)):
            raise InvalidModel(
                f"{source} and the registered model at {other} lie inside each other; install it in place"
            )


def remove(models: Path, path: Path, key: str, other_models: list[Path]) -> None:
    """Remove the files of the model at `path`, and its folder `<models>/<key>`, if they lie inside the models folder.

    What lies elsewhere stays, and so does anything that one of the registered models at `others` lies in.
    """
    folder = models / key
    target = folder if path.is_relative_to(folder) else path
    if (
        is_inside(models, target)
        and target.name != IMAGES_FOLDER
        and not any(paths.contains(target, other) for other in other_models)
    ):
        paths.erase(target)


def is_inside(models: Path, path: Path) -> bool:
    """Tell whether `path`, taken as itself even when it is a link, lies inside the models folder."""
    normal = Path(os.path.normpath(path))
    inside = (paths.real(normal.parent) / normal.name).is_relative_to(paths.real(models))
    return inside and paths.real(normal) != paths.real(models)
