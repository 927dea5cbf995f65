"""What is done to registered models besides reading their rows: change, delete, identify anew, look for missing files."""

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
from invokeclone.models.errors import InvalidModel, ModelDoesNotFit
from invokeclone.models.files.on_disk import OnDisk
from invokeclone.models.identify import registry
from invokeclone.models.identify.identify import identify
from invokeclone.models.records import pictures, placement, relationships, store
from invokeclone.models.records.events import ModelsChangedEvent
from invokeclone.models.records.guard import Guard
from invokeclone.models.records.schemas import ModelRecordChanges

_log = log.get("models")


class MissingFiles(NotFound):
    """The record's files are not where it says."""


class KeyIsFixed(Unprocessable):
    """A record's key can't be changed."""


async def reserved_paths(resources: Resources) -> list[Path]:
    """Return the files and folders that belong to registered models or to their images: no download may go there."""
    async with resources.database.read() as connection:
        recorded = await store.paths(connection)
    return placement.reserved(resources.settings.models_path, recorded)


async def change(resources: Resources, guard: Guard, key: str, changes: ModelRecordChanges) -> ModelConfig:
    """Change the fields that were given and return the record.

    Raises UnknownModelException, KeyIsFixed, ModelBusy, DuplicateModelException (path), and ModelDoesNotFit when the
    result is no record of any class.
    """
    stated = changes.stated()
    if stated.pop("key", key) not in (key, None):
        raise KeyIsFixed("the key of a model can't be changed")
    with guard.holding(key):
        async with resources.database.write() as connection:
            config = _changed(await store.get(connection, key), stated)
            await store.update(connection, config)
    resources.events.emit(ModelsChangedEvent(keys=[key]))
    return config


def _changed(config: ModelConfig, stated: dict[str, Any]) -> ModelConfig:
    merged = config.model_dump() | stated
    if stated.get("type", config.type) != config.type and "default_settings" not in stated:
        merged.pop("default_settings", None)
    if config.path and (merged["path"] in {"", ".", None} or "\0" in merged["path"]):
        raise ModelDoesNotFit("a model needs a path")
    try:
        return registry.parse(merged)
    except ValueError as error:
        raise ModelDoesNotFit(str(error)) from error


async def remove(resources: Resources, guard: Guard, key: str) -> None:
    """Delete a record, its picture, and its files if they lie in the models folder.

    Raises UnknownModelException, ModelBusy. Files that can't be removed stay as orphans and are logged.
    """
    with guard.holding(key):
        await remove_held(resources, key)


async def remove_held(resources: Resources, key: str, heir: str | None = None) -> None:
    """Do the same for a model that is held already; its relatives become those of the model `heir`, if there is one."""
    settings = resources.settings
    async with resources.database.write() as connection:
        if heir is not None:
            await relationships.hand_over(connection, key, heir)
        path = placement.absolute(settings.models_path, await store.delete(connection, key))
        others = await store.paths(connection)
    resources.events.emit(ModelsChangedEvent(keys=[key]))
    await in_thread(_remove_files, settings, path, key, list(others.values()))


def _remove_files(settings: Settings, path: Path, key: str, others: list[str]) -> None:
    models = settings.models_path
    try:
        placement.remove(models, path, key, [placement.absolute(models, other) for other in others])
        pictures.remove(settings, key)
    except OSError as error:
        _log.warning("files of the deleted model %s remain at %s: %s", key, path, error)


async def reidentify(resources: Resources, guard: Guard, key: str) -> ModelConfig:
    """Find out again what a model is, and return its record with the same key, name, description, source and settings.

    A base that only its record knew is kept. Raises UnknownModelException, MissingFiles, ModelBusy, and InvalidModel
    (with the record left as it was) when nothing can be made of the files.
    """
    models = resources.settings.models_path
    with guard.holding(key):
        async with resources.database.read() as connection:
            config = await store.get(connection, key)
        model = OnDisk(placement.absolute(models, config.path))
        found = await in_thread(_identify_again, model, config)
        async with resources.database.write() as connection:
            await store.update(connection, found)
    resources.events.emit(ModelsChangedEvent(keys=[key]))
    return found


def _identify_again(model: OnDisk, config: ModelConfig) -> ModelConfig:
    if not config.path:
        raise MissingFiles(f"{config.name} has no files: it is a model of {config.source}")
    if not paths.is_there(model.path):
        raise MissingFiles(f"the files of {config.name} are missing: {model.path}")
    facts = config.model_dump(include=set(ModelConfig.model_fields) - {"type", "format", "base"})
    unknown = config.type == ModelType.Unknown
    try:
        found = identify(model, facts, {}, allow_unknown=unknown)
    except InvalidModel:
        if unknown:
            raise
        found = identify(model, facts, {"base": config.base}, allow_unknown=False)
    if found.type != config.type:
        return found
    kept = {"trigger_phrases", "default_settings", "cpu_only", "config_path"} & set(type(found).model_fields)
    known = config.model_dump(include=kept, exclude_none=True)
    return type(found).model_validate(found.model_dump() | known)


async def each(keys: list[str], work: Callable[[str], Awaitable[object]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Do `work` for every key; return the keys for which it went well, and `{key, error}` for the others."""
    done: list[str] = []
    failed: list[dict[str, Any]] = []
    for key in keys:
        try:
            await work(key)
        except (InvokeCloneError, OSError) as error:
            failed.append({"key": key, "error": str(error)})
        else:
            done.append(key)
    return done, failed


async def missing(resources: Resources) -> list[ModelConfig]:
    """Return the records whose files are not where they say."""
    async with resources.database.read() as connection:
        configs = await store.search(connection)
    models = resources.settings.models_path

    def gone() -> list[ModelConfig]:
        found = [config for config in configs if config.path]
        return [config for config in found if not paths.is_there(placement.absolute(models, config.path))]

    return await in_thread(gone)


async def set_picture(resources: Resources, guard: Guard, key: str, data: bytes) -> None:
    """Keep a picture for a model; raises UnknownModelException, NotAPicture, ModelBusy."""
    with guard.holding(key):
        async with resources.database.read() as connection:
            await store.get(connection, key)
        await in_thread(pictures.save, resources.settings, key, data)


async def remove_picture(resources: Resources, guard: Guard, key: str) -> None:
    """Remove a model's picture; raises UnknownPicture when it has none, ModelBusy."""
    with guard.holding(key):
        await in_thread(pictures.find, resources.settings, key)
        await in_thread(pictures.remove, resources.settings, key)
