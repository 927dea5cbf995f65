"""Operations on registered models: change, delete, reidentify, set images, find missing files."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import InvokeCloneError, NotFound, Unprocessable
from invokeclone.kit.files import paths
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.errors import InvalidModel, InvalidModelRecord
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify import registry
from invokeclone.models.identify.explicit_kind import KIND_FIELDS
from invokeclone.models.identify.identify import identify
from invokeclone.models.records import model_images, placement, relationships, store
from invokeclone.models.records.events import ModelsChangedEvent
from invokeclone.models.records.guard import Guard
from invokeclone.models.records.schemas import ModelRecordChanges

_log = log.get("models")


class MissingFiles(NotFound):
    """The files of the model do not exist."""


class KeyIsFixed(Unprocessable):
    """The key of a record cannot be changed."""


async def list_model_paths(resources: Resources) -> list[Path]:
    """Return the files and folders of registered models and their images, which downloads must not write to."""
    async with resources.database.read() as connection:
        recorded_paths = await store.paths(connection)
    return placement.all_model_paths(resources.settings.models_path, recorded_paths)


async def change(resources: Resources, guard: Guard, key: str, changes: ModelRecordChanges) -> ModelConfig:
    """Change the fields set in `changes` and return the record.

    Raises UnknownModelException, KeyIsFixed, ModelBusy, DuplicateModelException (path), and InvalidModelRecord if the
    result is not valid for any class.
    """
    fields = changes.explicit_fields()
    if fields.pop("key", key) not in (key, None):
        raise KeyIsFixed("the key of a model cannot be changed")
    with guard.lock(key):
        async with resources.database.write() as connection:
            config = _apply_changes(await store.get(connection, key), fields)
            await store.update(connection, config)
    resources.events.emit(ModelsChangedEvent(keys=[key]))
    return config


def _apply_changes(config: ModelConfig, fields: dict[str, Any]) -> ModelConfig:
    merged = config.model_dump() | fields
    if fields.get("type", config.type) != config.type and "default_settings" not in fields:
        merged.pop("default_settings", None)
    if config.path and (merged["path"] in {"", ".", None} or "\0" in merged["path"]):
        raise InvalidModelRecord("a model needs a path")
    try:
        return registry.parse(merged)
    except ValueError as error:
        raise InvalidModelRecord(str(error)) from error


async def remove(resources: Resources, guard: Guard, key: str) -> None:
    """Delete a record, its image, and its files if they are inside the models folder.

    Raises UnknownModelException, ModelBusy. Files that cannot be removed stay as orphans and are logged.
    """
    with guard.lock(key):
        await remove_locked(resources, key)


async def remove_locked(resources: Resources, key: str, successor: str | None = None) -> None:
    """Delete a model whose lock is held; its relationships are transferred to the model `successor`, if given."""
    settings = resources.settings
    async with resources.database.write() as connection:
        if successor is not None:
            await relationships.transfer(connection, key, successor)
        path = placement.to_absolute_path(settings.models_path, await store.delete(connection, key))
        other_paths = await store.paths(connection)
    resources.events.emit(ModelsChangedEvent(keys=[key]))
    await in_thread(_remove_files, settings, path, key, list(other_paths.values()))


def _remove_files(settings: Settings, path: Path, key: str, other_paths: list[str]) -> None:
    models = settings.models_path
    try:
        placement.remove(models, path, key, [placement.to_absolute_path(models, other) for other in other_paths])
        model_images.remove(settings, key)
    except OSError as error:
        _log.warning("files of the deleted model %s remain at %s: %s", key, path, error)


async def reidentify(resources: Resources, guard: Guard, key: str) -> ModelConfig:
    """Identify a model again and return its record, which keeps its key, name, description, source and settings.

    A base or class that cannot be detected is kept from the record. Raises UnknownModelException, MissingFiles, ModelBusy, and
    InvalidModel (leaving the record unchanged) if the files cannot be identified.
    """
    models = resources.settings.models_path
    with guard.lock(key):
        async with resources.database.read() as connection:
            config = await store.get(connection, key)
        model = ModelFiles(placement.to_absolute_path(models, config.path))
        new_config = await in_thread(_identify_again, model, config)
        async with resources.database.write() as connection:
            await store.update(connection, new_config)
    resources.events.emit(ModelsChangedEvent(keys=[key]))
    return new_config


def _identify_again(model: ModelFiles, config: ModelConfig) -> ModelConfig:
    if not config.path:
        raise MissingFiles(f"{config.name} has no files: it is a model of {config.source}")
    if not paths.exists(model.path):
        raise MissingFiles(f"the files of {config.name} are missing: {model.path}")
    record_fields = config.model_dump(include=set(ModelConfig.model_fields) - {"type", "format", "base"})
    unknown = config.type == ModelType.Unknown
    try:
        new_config = identify(model, record_fields, {}, allow_unknown=unknown)
    except InvalidModel:
        if unknown:
            raise
        new_config = _identify_as_recorded(model, record_fields, config)
    if new_config.type != config.type:
        return new_config
    setting_names = {"trigger_phrases", "default_settings", "cpu_only", "config_path"} & set(
        type(new_config).model_fields
    )
    settings = config.model_dump(include=setting_names, exclude_none=True)
    return type(new_config).model_validate(new_config.model_dump() | settings)


def _identify_as_recorded(model: ModelFiles, record_fields: dict[str, Any], config: ModelConfig) -> ModelConfig:
    """Return the record with the base of `config`, or else of the same class if the files have its form."""
    recorded = {name: getattr(config, name, None) for name in KIND_FIELDS}
    try:
        return identify(model, record_fields, {"base": config.base}, allow_unknown=False)
    except InvalidModel:
        kind = {name: value for name, value in recorded.items() if value is not None}
        return identify(model, record_fields, kind, allow_unknown=False)


async def for_each(keys: list[str], work: Callable[[str], Awaitable[object]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Run `work` for every key; return the keys that succeeded, and `{key, error}` for those that failed."""
    succeeded: list[str] = []
    failed: list[dict[str, Any]] = []
    for key in keys:
        try:
            await work(key)
        except (InvokeCloneError, OSError) as error:
            failed.append({"key": key, "error": str(error)})
        else:
            succeeded.append(key)
    return succeeded, failed


async def list_missing(resources: Resources) -> list[ModelConfig]:
    """Return the records whose files are missing."""
    async with resources.database.read() as connection:
        configs = await store.search(connection)
    models = resources.settings.models_path

    def find_missing() -> list[ModelConfig]:
        local_configs = [config for config in configs if config.path]
        return [config for config in local_configs if not paths.exists(placement.to_absolute_path(models, config.path))]

    return await in_thread(find_missing)


async def set_image(resources: Resources, guard: Guard, key: str, data: bytes) -> None:
    """Store the image of a model. Raises UnknownModelException, InvalidModelImage, ModelBusy."""
    with guard.lock(key):
        async with resources.database.read() as connection:
            await store.get(connection, key)
        await in_thread(model_images.save, resources.settings, key, data)


async def remove_image(resources: Resources, guard: Guard, key: str) -> None:
    """Remove the image of a model. Raises ModelImageNotFound, ModelBusy."""
    with guard.lock(key):
        await in_thread(model_images.find, resources.settings, key)
        await in_thread(model_images.remove, resources.settings, key)
