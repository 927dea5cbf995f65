"""Folder scans: installable models, unregistered models and orphaned entries of the models folder."""

from pathlib import Path

from invokeclone.kit.errors import BadRequest
from invokeclone.kit.files import paths
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.models.files import candidates
from invokeclone.models.files.model_files import MODEL_FILES, walk
from invokeclone.models.install.service import Installer
from invokeclone.models.records import placement, store
from invokeclone.models.records.schemas import (
    DeleteOrphanedModelsResponse,
    FoundModel,
    ModelRecordChanges,
    OrphanedModelInfo,
)


class NotAFolder(BadRequest):
    """The path is not a folder."""


async def scan(resources: Resources, folder: str | None) -> list[FoundModel]:
    """Return the possible models under `folder` and whether each is registered. Raises NotAFolder."""
    path = await in_thread(_folder, folder or "")
    models = resources.settings.models_path
    async with resources.database.read() as connection:
        paths, installed = await store.paths(connection), await store.sources(connection)
    installed |= {str(placement.to_absolute_path(models, recorded_path)) for recorded_path in paths.values()}

    def find() -> list[FoundModel]:
        return [
            FoundModel(path=candidate.as_posix(), is_installed=str(candidate) in installed)
            for candidate in candidates.find(path)
        ]

    return await in_thread(find)


async def install_unregistered(resources: Resources, installer: Installer) -> None:
    """Start to install in place the unregistered models in the models folder."""
    models = resources.settings.models_path
    if not await in_thread(models.is_dir):
        return
    async with resources.database.read() as connection:
        registered_paths = [
            placement.to_absolute_path(models, path) for path in (await store.paths(connection)).values()
        ]
    registered_paths += [models / placement.IMAGES_FOLDER, *installer.paths_in_use()]

    def find() -> list[Path]:
        model_paths = [
            path
            for path in candidates.find(models)
            if path != models and not path.relative_to(models).parts[0].startswith(placement.DOWNLOAD_PREFIX)
        ]
        return [path for path in model_paths if not any(paths.contains(model, path) for model in registered_paths)]

    for path in await in_thread(find):
        await installer.add(str(path), ModelRecordChanges(), inplace=True)


def _folder(text: str) -> Path:
    try:
        path = Path(text).expanduser().absolute()
        if text and path.is_dir():
            return path
    except (OSError, RuntimeError, ValueError) as error:
        raise NotAFolder(f"not a folder: {text!r}") from error
    raise NotAFolder(f"not a folder: {text!r}")


async def find_orphans(resources: Resources, installer: Installer) -> list[OrphanedModelInfo]:
    """Return entries of the models folder with model files that no record and no active installation uses."""
    models = resources.settings.models_path
    used_paths = [models / key for key in installer.guard.keys_in_use()] + installer.paths_in_use()
    async with (
        resources.database.read() as connection
    ):  # after the above: jobs that end in the meantime have their record by now
        used_paths += [placement.to_absolute_path(models, path) for path in (await store.paths(connection)).values()]
    protected = placement.list_protected_folders(resources.settings)

    def find() -> list[OrphanedModelInfo]:
        entries = sorted(models.iterdir()) if models.is_dir() else []
        visible_entries = [
            entry
            for entry in entries
            if not entry.name.startswith(".") and entry.name != placement.IMAGES_FOLDER and paths.is_utf8(entry)
        ]
        infos = [
            _info(entry)
            for entry in visible_entries
            if not any(paths.contains(entry, path) for path in (*used_paths, *protected))
            and not any(paths.contains(path, entry) for path in protected)
        ]
        return [info for info in infos if info.files]

    return await in_thread(find)


def _info(entry: Path) -> OrphanedModelInfo:
    files = sorted(walk(entry)) if entry.is_dir() else [entry]
    folder = entry if entry.is_dir() else entry.parent
    return OrphanedModelInfo(
        path=entry.name,
        absolute_path=entry.as_posix(),
        files=[
            file.relative_to(folder).as_posix()
            for file in files
            if file.suffix.lower() in MODEL_FILES and paths.is_utf8(file)
        ],
        size_bytes=sum(file.stat().st_size for file in files),
    )


async def remove_orphans(resources: Resources, installer: Installer, names: list[str]) -> DeleteOrphanedModelsResponse:
    """Remove orphaned entries; other names, especially those of installed models, are refused in `errors`."""
    response = DeleteOrphanedModelsResponse(deleted=[], errors={})
    async with installer.guard.placement_lock:
        orphaned = {info.path for info in await find_orphans(resources, installer)}
        for name in dict.fromkeys(names):
            if name not in orphaned:
                response.errors[name] = "not an orphaned entry of the models folder"
                continue
            try:
                await in_thread(paths.erase, resources.settings.models_path / name)
            except OSError as error:
                response.errors[name] = str(error)
            else:
                response.deleted.append(name)
    return response
