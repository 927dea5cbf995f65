"""Location of model files: recorded paths, moving a download into the models folder, removing a model from it.

Every function blocks; call them in a thread.
"""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import invokeclone
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files import paths
from invokeclone.kit.files.storage import safe_join
from invokeclone.kit.process import processes
from invokeclone.kit.storage import addresses
from invokeclone.models.errors import DuplicateModelException, RefusedModel
from invokeclone.models.files import candidates

IMAGES_FOLDER = "model_images"
_COPY_PREFIX = ".copying_"
DOWNLOAD_PREFIX = "tmpinstall_"
"""Prefix of the folders of downloads, which are removed with their jobs."""


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
    """Rename the model at `source`, a file or folder of ours on the same disk, into the models folder.

    A file becomes `<key>/<file name>`, a folder becomes `<key>`. Returns the new path. Raises DuplicateModelException
    if the folder exists, OSError with the source unchanged.
    """
    folder = safe_join(models, key)
    if folder.exists():
        raise DuplicateModelException(f"the models folder has an entry {key} already")
    models.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        source.rename(folder)
        return folder
    folder.mkdir()
    try:
        source.rename(folder / source.name)
    except BaseException:
        folder.rmdir()
        raise
    return folder / source.name


def move_back(models: Path, location: Path, source: Path, key: str) -> None:
    """Undo `move_in`: move the model at `location` back to `source`."""
    location.rename(source)
    folder = models / key
    if folder.is_dir():
        folder.rmdir()


def remove_abandoned_copies(models: Path) -> None:
    """Remove the incomplete copies of ended processes, and of this process, which must not be moving any model."""
    for partial_copy in models.glob(f"{_COPY_PREFIX}*"):
        pid = partial_copy.name.removeprefix(_COPY_PREFIX).partition("_")[0]
        if pid == str(os.getpid()) or not processes.is_running(pid):
            paths.erase(partial_copy)


def scratch_folder(models: Path, key: str) -> Path:
    """Return the path of a temporary folder for the model `key`; `remove_abandoned_copies` removes it after a crash."""
    models.mkdir(parents=True, exist_ok=True)
    return models / f"{_COPY_PREFIX}{os.getpid()}_{key}"


def list_protected_folders(settings: Settings) -> list[Path]:
    """Return the folders that are no models, whatever a record's path says: the package, and what users created."""
    folders = [
        Path(invokeclone.__file__).parent,
        settings.database_path.parent,
        settings.outputs_path,
        settings.custom_nodes_path,
        settings.fonts_path,
        settings.style_presets_path,
        settings.workflow_thumbnails_path,
        settings.profiles_path,
    ]
    storage_folder = addresses.local_folder(settings)
    folders += [storage_folder] if storage_folder else []
    return [folder for folder in folders if not paths.contains(folder, settings.models_path)]


def check_key_folder(models: Path, path: Path, key: str) -> None:
    """Raise DuplicateModelException if `<models>/<key>`, which is deleted with the model `key`, has other models."""
    folder = models / key
    if folder != path and folder.exists() and candidates.find(folder) != [path]:
        raise DuplicateModelException(f"the models folder has an entry {key} already")


def check_copyable(models: Path, source: Path) -> None:
    """Raise RefusedModel if `source` contains the models folder, so that a copy would contain itself."""
    if paths.real(models).is_relative_to(paths.real(source)):
        raise RefusedModel(f"{source} contains the models folder {models}; install the models in it one by one")


def check_movable(source: Path, other_models: list[Path], protected: list[Path]) -> None:
    """Raise RefusedModel if moving `source` would break a registered model at one of `other_models`, or this program.

    `protected` are folders of which nothing may be moved.
    """
    real_source = paths.real(source)
    for other in map(paths.real, other_models):
        if other != real_source and _overlap(other, real_source):
            raise RefusedModel(f"{source} contains or is inside the registered model at {other}; do not move it")
    for folder in map(paths.real, protected):
        if _overlap(folder, real_source):
            raise RefusedModel(f"{source} belongs to this program (or contains {folder}); do not move it")


def is_own_file(models: Path, path: Path, other_models: list[Path]) -> bool:
    """Return whether `path` is inside the models folder, with links resolved, to stay there.

    It is no part of a registered model, and in no temporary folder.
    """
    real_path = paths.real(path)
    return (
        real_path.is_relative_to(paths.real(models))
        and not _is_temporary(models, path)
        and not any(_overlap(paths.real(other), real_path) for other in other_models)
    )


def check_permanent(models: Path, path: Path) -> None:
    """Raise RefusedModel if `path` is in a temporary folder of an installation, which is removed with its job."""
    if _is_temporary(models, path):
        raise RefusedModel(f"{path} is in a temporary folder of an installation; install it without `inplace`")


def _is_temporary(models: Path, path: Path) -> bool:
    real_path, real_models = paths.real(path), paths.real(models)
    if not real_path.is_relative_to(real_models) or real_path == real_models:
        return False
    return real_path.relative_to(real_models).parts[0].startswith((_COPY_PREFIX, DOWNLOAD_PREFIX))


def _overlap(path: Path, other: Path) -> bool:
    return path.is_relative_to(other) or other.is_relative_to(path)


def remove(models: Path, path: Path, key: str, other_models: list[Path], protected: list[Path]) -> None:
    """Remove the files of the model at `path`, and its folder `<models>/<key>`, if they are inside the models folder.

    Files elsewhere are kept, and so is what contains or belongs to one of the registered models at `other_models` or
    one of the folders `protected`.
    """
    folder = models / key
    target = folder if path.is_relative_to(folder) else path
    if (
        is_inside(models, target)
        and target.name != IMAGES_FOLDER
        and not any(
            paths.contains(target, other) or paths.contains(other, target) for other in (*other_models, *protected)
        )
    ):
        paths.erase(target)


def is_inside(models: Path, path: Path) -> bool:
    """Return whether `path` is inside the models folder; a link at `path` itself is not followed."""
    normal = Path(os.path.normpath(path))
    inside = (paths.real(normal.parent) / normal.name).is_relative_to(paths.real(models))
    return inside and paths.real(normal) != paths.real(models)
