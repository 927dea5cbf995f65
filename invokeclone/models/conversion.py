"""Conversion of a single-file model to a diffusers folder, which a worker writes.

Record, image and relationships are transferred; the old record and its file are removed last. Does not depend on torch.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from invokeclone.kit.errors import BadRequest, FailedDependency, Unavailable
from invokeclone.kit.files import paths
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.kit.workers import Workers
from invokeclone.models.configs.model_config import ModelConfig, new_key
from invokeclone.models.errors import UnknownModelException
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.install.registration import Files, RegistrationRequest, register
from invokeclone.models.records import changes, model_images, placement, store
from invokeclone.models.records.guard import Guard

_BASES = (
    BaseModelType.StableDiffusion1,
    BaseModelType.StableDiffusion2,
    BaseModelType.StableDiffusionXL,
    BaseModelType.StableDiffusionXLRefiner,
)
_COPIED_FIELDS = {
    "name", "description", "source_api_response", "source_url", "trigger_phrases", "default_settings", "base",
    "prediction_type", "variant",
}  # fmt: skip
_STARTUP_S = 60.0
_TIMEOUT_S = 3600.0
"""Timeout in seconds for the worker to read and write a model."""


class NothingToConvert(FailedDependency):
    """The model does not exist, or its file is missing."""


class NotConvertible(BadRequest):
    """The model is not of a kind that can be converted, or the content of its file is not as expected."""


async def convert(resources: Resources, guard: Guard, workers: Workers, key: str) -> ModelConfig:
    """Replace the model `key` with a diffusers folder and return the new record, which has a new key.

    Raises NothingToConvert, NotConvertible, ModelBusy, and Unavailable without a worker, leaving the model unchanged.
    """
    with guard.lock(key):
        old = await _load_convertible(resources, key)
        models = resources.settings.models_path
        path, target_key = placement.to_absolute_path(models, old.path), new_key()
        target = placement.scratch_folder(models, target_key)
        try:
            await _write(workers, old, path, target)
            new = await register(resources, guard, _registration_request(old, target, target_key))
        except BaseException:
            await asyncio.shield(in_thread(paths.erase, target))
            raise
        with contextlib.suppress(OSError):
            await in_thread(model_images.move, resources.settings, key, target_key)
        await changes.remove_locked(resources, key, successor=target_key)
    return new


async def _load_convertible(resources: Resources, key: str) -> ModelConfig:
    try:
        async with resources.database.read() as connection:
            config = await store.get(connection, key)
    except UnknownModelException as error:
        raise NothingToConvert(str(error)) from error
    if (config.type, config.format) != (ModelType.Main, ModelFormat.Checkpoint) or config.base not in _BASES:
        raise NotConvertible(f"{config.name} is not a single-file main model of Stable Diffusion 1, 2 or XL")
    path = placement.to_absolute_path(resources.settings.models_path, config.path)
    if not await in_thread(paths.exists, path):
        raise NothingToConvert(f"the file of {config.name} is missing: {config.path}")
    if await in_thread(path.is_dir):
        raise NotConvertible(f"{config.name} is a folder already: {config.path}")
    return config


async def _write(workers: Workers, old: ModelConfig, path: Path, target: Path) -> None:
    dtypes = await in_thread(lambda: {tensor.dtype for tensor in ModelFiles(path).tensors.values()})
    body = {
        "base": old.base,
        "path": str(path),
        "target": str(target),
        "prediction_type": getattr(old, "prediction_type", "epsilon"),
        "half": "F16" in dtypes and "F32" not in dtypes,
    }
    try:
        answer = await workers.ask_one("convert_model", body, _TIMEOUT_S, startup_s=_STARTUP_S)
    except TimeoutError as error:
        raise Unavailable(f"the worker did not convert {old.name} within {_TIMEOUT_S:.0f} s; try again") from error
    if isinstance(answer, dict) and answer.get("refused"):
        raise NotConvertible(f"{old.name} cannot be converted: {answer['refused']}")


def _registration_request(old: ModelConfig, target: Path, key: str) -> RegistrationRequest:
    fields: dict[str, Any] = old.model_dump(include=_COPIED_FIELDS, exclude_none=True)
    return RegistrationRequest(
        path=target, source=old.source, source_type=old.source_type, overrides=fields | {"key": key}, files=Files.OURS
    )
