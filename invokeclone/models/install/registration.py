"""Registration of a model: examine, hash, move the files, insert the record.

Atomic: moved files are moved back if the record cannot be inserted. Used by the installer and for the embedded model.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelSourceType, ModelType
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files import paths
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig, new_key
from invokeclone.models.errors import DuplicateModelException, InstallCancelled, InvalidModel
from invokeclone.models.files import sidecars
from invokeclone.models.files.hashing import hash_model
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify import registry
from invokeclone.models.identify.identify import identify
from invokeclone.models.install.jobs import ExternalModelSource
from invokeclone.models.records import model_images, placement, store
from invokeclone.models.records.guard import Guard

_log = log.get("models")

_DETECTED_FIELDS = {"key", "path", "hash", "file_size"}
"""Fields that are always detected and cannot be overridden."""

_KEY = re.compile(r"[\w-][\w .-]{0,199}\Z")
"""A key names a folder in the models folder and an image, and so must be a plain and short file name."""


def is_key(text: str) -> bool:
    """Return whether a text is a valid model key."""
    return bool(_KEY.match(text)) and text != placement.IMAGES_FOLDER


@dataclass(frozen=True)
class RegistrationRequest:
    """A model to register: its absolute `path`, its source, fields set by the user, and options."""

    path: Path
    source: str
    source_type: ModelSourceType
    overrides: dict[str, Any] = field(default_factory=dict)
    inplace: bool = False
    is_cancelled: Callable[[], bool] = lambda: False


async def register(resources: Resources, guard: Guard, request: RegistrationRequest) -> ModelConfig:
    """Register the model and return its record.

    Raises InvalidModel, DuplicateModelException, ModelBusy, OSError, and InstallCancelled once `request.is_cancelled()`
    returns True; after an error the files are unchanged and there is no record.
    """
    key = str(request.overrides.get("key") or new_key())
    if not is_key(key):
        raise InvalidModel(f"a key must be a plain file name: {key!r}")
    with guard.lock(key):
        await _check_free(resources, request.path, key)
        config = await in_thread(examine, resources.settings, request, key)
        async with guard.placement_lock:
            await _check_free(resources, request.path, key)
            if request.is_cancelled():
                raise InstallCancelled("cancelled before any files were moved")
            image_data = await in_thread(_sidecar_image, request.path, config)
            config = await _insert(resources, request, config)
        if image_data is not None:
            await in_thread(_save_image, resources.settings, key, image_data)
        return config


def _has_sidecars(path: Path, config: ModelConfig) -> bool:
    return config.type == ModelType.LoRA and path.is_file()


def _sidecar_image(path: Path, config: ModelConfig) -> bytes | None:
    return sidecars.read_image(path) if _has_sidecars(path, config) else None


def _save_image(settings: Settings, key: str, data: bytes) -> None:
    try:
        model_images.save(settings, key, data)
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


def examine(settings: Settings, request: RegistrationRequest, key: str) -> ModelConfig:
    """Return the record for the model at its current path. Blocking: reads all weights."""
    model = ModelFiles(request.path)
    record_fields = {
        "key": key,
        "hash": "",
        "path": placement.to_record_path(settings.models_path, request.path),
        "file_size": 0,
        "name": model.name,
        "source": request.source,
        "source_type": request.source_type,
    }
    overrides = {
        name: value for name, value in request.overrides.items() if value is not None and name not in _DETECTED_FIELDS
    }
    config = identify(model, record_fields, overrides, allow_unknown=settings.allow_unknown_models)
    if _has_sidecars(request.path, config):
        sidecar_fields = {
            name: value for name, value in sidecars.read_fields(request.path).items() if name not in overrides
        }
        config = config.model_copy(update=sidecar_fields)
    model_hash = hash_model(model, settings.hashing_algorithm, request.is_cancelled)
    return config.model_copy(update={"hash": model_hash, "file_size": model.size})


async def _check_free(resources: Resources, path: Path, key: str) -> None:
    """Raise DuplicateModelException if a record has the same key or the same path after resolving links."""
    models = resources.settings.models_path
    async with resources.database.read() as connection:
        recorded_paths = await store.paths(connection)
    if key in recorded_paths:
        raise DuplicateModelException(f"a model with key {key} is registered already")

    def find_duplicate() -> str | None:
        real = paths.real(path)
        return next(
            (
                k
                for k, recorded_path in recorded_paths.items()
                if paths.real(placement.to_absolute_path(models, recorded_path)) == real
            ),
            None,
        )

    if (other := await in_thread(find_duplicate)) is not None:
        raise DuplicateModelException(f"{path} is registered already, as model {other}")


async def _insert(resources: Resources, request: RegistrationRequest, config: ModelConfig) -> ModelConfig:
    models, final_path = resources.settings.models_path, request.path
    if not request.inplace:
        async with resources.database.read() as connection:
            registered_paths = [
                placement.to_absolute_path(models, path) for path in (await store.paths(connection)).values()
            ]
        await in_thread(placement.check_movable, models, request.path, registered_paths)
        final_path = await in_thread(placement.move_in, models, request.path, config.key)
    config = config.model_copy(update={"path": placement.to_record_path(models, final_path)})
    try:
        async with resources.database.write() as connection:
            await store.add(connection, config)
    except BaseException:
        if not request.inplace:
            await asyncio.shield(in_thread(placement.move_back, models, final_path, request.path, config.key))
        raise
    return config
