"""Duplicates: models that are registered already, under the same key, path, file or source."""

from pathlib import Path

from invokeclone.kit.files import paths
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.errors import DuplicateModelException
from invokeclone.models.records import placement, store
from invokeclone.models.records.store import InstalledFiles


async def check(resources: Resources, path: Path, key: str, config: ModelConfig | None = None) -> None:
    """Raise DuplicateModelException if the model at `path` is registered already, or the key is.

    That is so if a record has the same path with links resolved, or its file is a hard link to the file, or, given the
    new record `config`, if a record was made from the same source and has the same content.
    """
    models = resources.settings.models_path
    async with resources.database.read() as connection:
        registered = await store.list_installed_files(connection)
    if any(files.key == key for files in registered):
        raise DuplicateModelException(f"a model with key {key} is registered already")

    def find() -> str | None:
        real, inode = paths.real(path), _inode(path)
        for files in registered:
            installed_path = placement.to_absolute_path(models, files.path)
            if paths.real(installed_path) == real or (inode is not None and inode == _inode(installed_path)):
                return files.key
            if config is not None and _is_same_source(files, config) and paths.exists(installed_path):
                return files.key
        return None

    if (other := await in_thread(find)) is not None:
        raise DuplicateModelException(f"{path} is registered already, as model {other}")


async def list_registered_paths(resources: Resources) -> list[Path]:
    """Return the absolute paths of all registered models."""
    async with resources.database.read() as connection:
        recorded = await store.paths(connection)
    return [placement.to_absolute_path(resources.settings.models_path, path) for path in recorded.values()]


def _inode(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file; None for a folder, and if it does not exist or cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return None if path.is_dir() or not status.st_ino else (status.st_dev, status.st_ino)


def _is_same_source(files: InstalledFiles, config: ModelConfig) -> bool:
    """Return whether a local source was installed before, and has not changed since."""
    if config.source_type != "path" or files.source != config.source or files.file_size != config.file_size:
        return False
    recorded_algorithm, algorithm = files.hash.partition(":")[0], config.hash.partition(":")[0]
    return files.hash == config.hash or algorithm == "random" or recorded_algorithm != algorithm
