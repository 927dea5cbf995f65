"""Location of model files: recorded paths, moving a model into the models folder, removing one from it.

Every function blocks; call them in a thread.
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
    """Return a record's `path` as an absolute path; relative ones are relative to the models folder."""
    return models / record_path


def all_model_paths(models: Path, recorded_paths: Mapping[str, str]) -> list[Path]:
    """Return the files and folders of all models and of their images; `recorded_paths` are paths by key."""
    model_paths = [models / key for key in recorded_paths] + [
        to_absolute_path(models, path) for path in recorded_paths.values()
    ]
    return [*model_paths, models / IMAGES_FOLDER]


def to_record_path(models: Path, path: Path) -> str:
    """Return `path` as stored in records: relative to the models folder if inside it, otherwise absolute."""
    inside = path.is_relative_to(models) and path != models
    return PurePosixPath(path.relative_to(models) if inside else path).as_posix()


def move_in(models: Path, source: Path, key: str) -> Path:
    """Move the model at `source` into the folder `key` of the models folder, and return its new path.

    A file becomes `<key>/<file name>`, a folder becomes `<key>`. On the same file system this is one rename; across
    file systems, a hidden copy is renamed once complete, and then the source is removed. A crash leaves the source or
    the target. Raises DuplicateModelException if the folder exists, OSError (disk full, no permission) with the source
    unchanged.
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
    """Undo `move_in`: move the model at `location` back to `source`."""
    _rename_or_copy(location, source, _partial_copy(source.parent, key))
    folder = models / key
    if folder.is_dir():
        folder.rmdir()


def _rename_or_copy(source: Path, target: Path, partial_copy: Path) -> None:
    try:
        os.rename(source, target)  # noqa: PTH104  (same system call as Path.rename)
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
    """Remove the incomplete copies of ended processes, and of this process, which must not be moving any model."""
    for partial_copy in models.glob(f"{_COPY_PREFIX}*"):
        pid = partial_copy.name.removeprefix(_COPY_PREFIX).partition("_")[0]
        if pid == str(os.getpid()) or not processes.is_running(pid):
            paths.erase(partial_copy)


def scratch_folder(models: Path, key: str) -> Path:
    """Return the path of a temporary folder for the model `key`; `remove_abandoned_copies` removes it after a crash."""
    models.mkdir(parents=True, exist_ok=True)
    return _partial_copy(models, f"new_{key}")


def _partial_copy(folder: Path, key: str) -> Path:
    """Return the path of an incomplete copy; its name contains the id of the process that writes it."""
    return folder / f"{_COPY_PREFIX}{os.getpid()}_{key}"


def check_movable(models: Path, source: Path, other_models: list[Path]) -> None:
    """Raise InvalidModel if moving `source` would move or break a registered model at one of `other_models`."""
    real_source = paths.real(source)
    if paths.real(models).is_relative_to(real_source):
        raise InvalidModel(f"{source} contains the models folder")
    for other in map(paths.real, other_models):
        if other != real_source and (other.is_relative_to(real_source) or real_source.is_relative_to(other)):
            raise InvalidModel(f"{source} contains or is inside the registered model at {other}; install it in place")


def remove(models: Path, path: Path, key: str, other_models: list[Path]) -> None:
    """Remove the files of the model at `path`, and its folder `<models>/<key>`, if they are inside the models folder.

    Files elsewhere are kept, as are folders that contain one of the registered models at `other_models`.
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
    """Return whether `path` is inside the models folder; a link at `path` itself is not followed."""
    normal = Path(os.path.normpath(path))
    inside = (paths.real(normal.parent) / normal.name).is_relative_to(paths.real(models))
    return inside and paths.real(normal) != paths.real(models)
