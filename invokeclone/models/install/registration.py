"""Registration of a model: copy and examine the files, insert the record.

Atomic: without a record there is no copy, and the user's files are where they were; the copy stays if it is unknown
whether the record is stored. Used by the installer, by conversion and for the embedded model.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelSourceType, ModelType
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files import copies, paths
from invokeclone.kit.process.offload import in_thread, run_to_completion
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.outcomes import read_stored
from invokeclone.kit.sql.transactions import CommitUnknown
from invokeclone.models.configs.model_config import ModelConfig, new_key
from invokeclone.models.errors import InstallCancelled, InvalidModel, RefusedModel, UnidentifiedModel
from invokeclone.models.files import candidates, sidecars
from invokeclone.models.files.hashing import hash_model
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify import registry
from invokeclone.models.identify.identify import identify
from invokeclone.models.install import duplicates
from invokeclone.models.install.jobs import ExternalModelSource
from invokeclone.models.records import model_images, placement, staging, store
from invokeclone.models.records.guard import Guard
from invokeclone.models.records.staging import StagedModel

_log = log.get("models")

_DETECTED_FIELDS = {"key", "path", "hash", "file_size"}
"""Fields that are always detected and cannot be overridden."""

_MAX_LISTED = 5

_KEY = re.compile(r"[\w-][\w .-]{0,199}\Z")
"""A key names a folder in the models folder and an image, and so must be a plain and short file name."""


def is_key(text: str) -> bool:
    """Return whether a text is a valid model key."""
    return bool(_KEY.match(text)) and text != placement.IMAGES_FOLDER


class Files(StrEnum):
    """What happens to the files of a model that is registered."""

    STAY = "stay"
    """They stay, and the record has their path."""
    COPIED = "copied"
    """They are copied (cloned or hard-linked where possible) into the models folder, and stay unless already in it."""
    MOVED = "moved"
    """They are copied likewise, and removed once the record exists."""
    OURS = "ours"
    """They are a temporary folder of ours inside the models folder, and are renamed."""


@dataclass(frozen=True)
class RegistrationRequest:
    """A model to register: its absolute `path`, its source, fields set by the user, and options."""

    path: Path
    source: str
    source_type: ModelSourceType
    overrides: dict[str, Any] = field(default_factory=dict)
    files: Files = Files.COPIED
    is_cancelled: Callable[[], bool] = lambda: False
    on_copy: Callable[[int, int], None] = lambda _copied, _total: None
    """Called in a thread with the copied and the total bytes."""

    def checkpoint(self, copied: int = 0, total: int = 0) -> None:
        """Report the progress of a copy. Raises InstallCancelled if the registration is cancelled."""
        if self.is_cancelled():
            raise InstallCancelled("cancelled before the model was registered")
        if total:
            self.on_copy(copied, total)


async def register(resources: Resources, guard: Guard, request: RegistrationRequest) -> ModelConfig:
    """Register the model and return its record.

    Raises InvalidModel, DuplicateModelException, ModelBusy, OSError, and InstallCancelled once `request.is_cancelled()`
    returns True; after an error the files are unchanged and there is no record.
    """
    key = str(request.overrides.get("key") or new_key())
    if not is_key(key):
        raise RefusedModel(f"a key must be a plain file name: {key!r}")
    with guard.lock(key):
        if await _prepare(resources, request, key):
            return await _register_copy(resources, guard, request, key)
        config = await in_thread(examine, resources.settings, request, key)
        async with guard.placement_lock:
            await duplicates.check(resources, request.path, key, config)
            request.checkpoint()
            image_data = await in_thread(_sidecar_image, request.path, config)
            config = await _insert_renamed(resources, request, config)
        await _save_image(resources.settings, key, image_data)
        return config


async def _prepare(resources: Resources, request: RegistrationRequest, key: str) -> bool:
    """Check a request before anything is copied, and return whether the files have to be copied."""
    settings, path = resources.settings, request.path
    await duplicates.check(resources, path, key)
    if request.files is Files.OURS:
        return False
    registered_paths = await duplicates.list_registered_paths(resources)

    def prepare() -> bool:
        if not paths.is_utf8(path):
            raise RefusedModel(f"the name of {str(path)!r} is not valid UTF-8; rename it")
        models = settings.models_path
        if request.files is Files.STAY:
            placement.check_permanent(models, path)
            placement.check_key_folder(models, path, key)
            return False
        placement.check_copyable(models, path)
        if request.files is Files.MOVED:
            placement.check_movable(path, registered_paths, placement.list_protected_folders(settings))
        elif placement.is_own_file(models, path, registered_paths):
            placement.check_key_folder(models, path, key)
            return False
        copies.list_files(path)
        identify_model(settings, request, path, key)
        return True

    return await in_thread(prepare)


async def _register_copy(resources: Resources, guard: Guard, request: RegistrationRequest, key: str) -> ModelConfig:
    models = resources.settings.models_path
    share = request.files is Files.MOVED
    staged = await run_to_completion(lambda: staging.stage(models, request.path, key, request.checkpoint, share=share))
    inserted: ModelConfig | None = None
    try:
        config = await run_to_completion(examine, resources.settings, request, key, staged.path)
        async with guard.placement_lock:
            await duplicates.check(resources, request.path, key, config)
            request.checkpoint()
            image_data = await in_thread(_sidecar_image, request.path, config)
            final_path = await run_to_completion(staging.publish, models, staged, key)
            config = inserted = config.model_copy(update={"path": placement.to_record_path(models, final_path)})
            await _insert(resources, config)
    except BaseException:  # if it is unknown whether there is a record, the next start finds the copy by its marker
        if inserted is None or await _is_stored(resources, inserted) is False:
            await _discard(models, staged, key)
        raise
    await run_to_completion(_finish, models, request, staged, key)
    await _save_image(resources.settings, key, image_data)
    return config


async def _insert(resources: Resources, config: ModelConfig) -> None:
    try:
        async with resources.database.write() as connection:
            await store.add(connection, config)
    except CommitUnknown:
        if not await _is_stored(resources, config):
            raise


async def _is_stored(resources: Resources, config: ModelConfig) -> bool | None:
    """Return whether there is a record with this key and path; None if the database cannot be reached."""
    return await read_stored(resources.database, lambda connection: store.has_path(connection, config.key, config.path))


async def _discard(models: Path, staged: StagedModel, key: str) -> None:
    try:
        await run_to_completion(staging.discard, models, staged, key)
    except OSError as error:  # the next start removes it
        _log.warning("the incomplete copy of %s cannot be removed: %s", staged.source, error)


def _finish(models: Path, request: RegistrationRequest, staged: StagedModel, key: str) -> None:
    """Remove the marker, and the source if it was to be moved; failures are only logged. Blocking."""
    try:
        staging.confirm(models, key)
    except OSError as error:  # the next start removes it
        _log.warning("the marker in %s cannot be removed: %s", models / key, error)
    if request.files is Files.MOVED:
        try:
            copies.remove_source(staged.source, staged.files)
        except OSError as error:
            _log.warning("%s was installed, but its source cannot be removed: %s", staged.source, error)


def _has_sidecars(path: Path, config: ModelConfig) -> bool:
    return config.type == ModelType.LoRA and path.is_file()


def _sidecar_image(path: Path, config: ModelConfig) -> bytes | None:
    return sidecars.read_image(path) if _has_sidecars(path, config) else None


async def _save_image(settings: Settings, key: str, data: bytes | None) -> None:
    try:
        if data is not None:
            await in_thread(model_images.save, settings, key, data)
    except (model_images.InvalidModelImage, OSError) as error:
        _log.warning("the preview image next to model %s is skipped: %s", key, error)


async def register_external(
    resources: Resources, guard: Guard, source: ExternalModelSource, overrides: dict[str, Any]
) -> ModelConfig:
    """Register an external model, which has no files; its default key is derived from provider and model name.

    Raises InvalidModel, DuplicateModelException, ModelBusy.
    """
    key = str(overrides.get("key") or re.sub(r"[^\w.-]+", "-", f"{source.provider_id}-{source.provider_model_id}"))
    if not is_key(key):
        raise InvalidModel(f"a key must be a plain file name: {key!r}")
    record = {
        "name": source.provider_model_id,
        "capabilities": {},
        **{name: value for name, value in overrides.items() if value is not None and name not in _DETECTED_FIELDS},
        "key": key,
        "source": str(source),
        "provider_id": source.provider_id,
        "provider_model_id": source.provider_model_id,
        "source_type": ModelSourceType.External,
    }
    kind = {"type": ModelType.ExternalImageGenerator, "format": ModelFormat.ExternalApi, "base": BaseModelType.External}
    try:
        config = registry.parse(kind | record)
    except ValueError as error:
        raise InvalidModel(f"{source} cannot be registered: {error}") from error
    with guard.lock(key):
        async with resources.database.write() as connection:
            await store.add(connection, config)
    return config


def examine(settings: Settings, request: RegistrationRequest, key: str, path: Path | None = None) -> ModelConfig:
    """Return the record for the model at `path`, by default the request's. Blocking: reads all weights."""
    path = request.path if path is None else path
    config = identify_model(settings, request, path, key)
    if _has_sidecars(request.path, config):
        sidecar_fields = {
            name: value
            for name, value in sidecars.read_fields(request.path).items()
            if request.overrides.get(name) is None
        }
        config = config.model_copy(update=sidecar_fields)
    model = ModelFiles(path)
    model_hash = hash_model(model, settings.hashing_algorithm, request.is_cancelled)
    return config.model_copy(update={"hash": model_hash, "file_size": model.size})


def identify_model(settings: Settings, request: RegistrationRequest, path: Path, key: str) -> ModelConfig:
    """Return the record for the model at `path`, without hash and size. Blocking: reads headers. Raises InvalidModel."""
    model = ModelFiles(path)
    record_fields = {
        "key": key,
        "hash": "",
        "path": placement.to_record_path(settings.models_path, path),
        "file_size": 0,
        "name": _read_repository_name(request.path) or model.name,
        "source": request.source,
        "source_type": request.source_type,
    }
    overrides = {
        name: value for name, value in request.overrides.items() if value is not None and name not in _DETECTED_FIELDS
    }
    config = identify(model, record_fields, overrides, allow_unknown=settings.allow_unknown_models)
    if config.type == ModelType.Unknown:
        _check_one_model(model)
    return config


def _read_repository_name(path: Path) -> str | None:
    """Return the name of the repository of a snapshot in Hugging Face's cache, which is named after a commit."""
    repository = path.parents[1].name if path.parent.name == "snapshots" else ""
    return repository.rpartition("--")[2] if repository.startswith("models--") else None


def is_one_model(settings: Settings, folder: Path) -> bool:
    """Return whether a folder is installed as one model, rather than the models in it. Blocking."""
    request = RegistrationRequest(folder, source=folder.as_posix(), source_type=ModelSourceType.Path)
    try:
        identify_model(settings, request, folder, new_key())
    except InvalidModel:
        return candidates.is_one_model(folder)
    return True


def _check_one_model(model: ModelFiles) -> None:
    """Raise RefusedModel for a folder of models that have nothing to do with each other."""
    if not model.is_folder or candidates.is_one_model(model.path):
        return
    names = [path.relative_to(model.path).as_posix() for path in candidates.find(model.path)]
    listed = ", ".join(names[:_MAX_LISTED]) + (" …" if len(names) > _MAX_LISTED else "")
    raise UnidentifiedModel(
        f"{model.path.name} is a folder of {len(names)} models ({listed}), not a model; install each of them: "
        "scan the folder, or use `invokeclone models install FOLDER`"
    )


async def _insert_renamed(resources: Resources, request: RegistrationRequest, config: ModelConfig) -> ModelConfig:
    """Insert the record of a model that is not copied; a folder of ours is renamed before."""
    if request.files is not Files.OURS:
        await _insert(resources, config)
        return config
    models = resources.settings.models_path
    final_path = await in_thread(placement.move_in, models, request.path, config.key)
    config = config.model_copy(update={"path": placement.to_record_path(models, final_path)})
    try:
        await _insert(resources, config)
    except BaseException:
        if await _is_stored(resources, config) is False:
            await asyncio.shield(in_thread(placement.move_back, models, final_path, request.path, config.key))
        raise
    return config
