"""Main models: which are meant, what their architectures can do, and their default settings."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.recipes import ImageSettings, Recipe, recipes
from invokeclone.graph.vocabulary.architectures import Architecture
from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.identify import registry
from invokeclone.models.install.embedded_model import EMBEDDED_KEY
from invokeclone.models.records import store as models
from invokeclone.models.records.matching import find_by_name
from invokeclone.queue.generation.errors import (
    InvalidGeneration,
    ModelCannotGenerate,
    ModelNotFound,
    NoModelInstalled,
)

_CAPABILITIES = {
    "image_to_image": "initial images",
    "inpaint": "inpainting masks",
    "hires_fix": "a second run over the enlarged result",
    "partial_denoise": "runs over a part of the steps",
    "lora": "LoRAs",
    "control": "ControlNets and T2I-Adapters",
    "reference_images": "reference images",
    "refiner": "refiners",
    "regional_prompts": "prompts for regions",
    "clip_skip": "CLIP skip",
    "seamless": "seamless images",
    "variation": "variations of a seed",
    "separate_vae": "another VAE",
    "cfg_rescale": "guidance rescaling",
}
"""Names of capabilities, and what users know them by."""


def require_capability(config: ModelConfig, name: str) -> None:
    """Raise InvalidGeneration unless the model's architecture has the capability."""
    architecture = architecture_of(config)
    if not getattr(architecture.capabilities, name):
        raise InvalidGeneration(f"{config.name}: {architecture.base} models do not support {_CAPABILITIES[name]}")


def check_capabilities(settings: ImageSettings, config: ModelConfig) -> None:
    """Raise InvalidGeneration for the first thing in the settings that the model's architecture cannot do."""
    needs = {
        "image_to_image": settings.init_image,
        "inpaint": settings.inpaint_mask,
        "hires_fix": settings.hires_fix,
        "lora": settings.loras,
        "control": settings.controls,
        "reference_images": settings.references,
        "refiner": settings.refiner,
        "clip_skip": settings.clip_skip,
        "seamless": settings.seamless,
        "variation": settings.variation,
        "separate_vae": settings.vae,
        "cfg_rescale": settings.cfg_rescale,
    }
    for name, needed in needs.items():
        if needed:
            require_capability(config, name)
    max_references = architecture_of(config).capabilities.reference_images
    if len(settings.references) > max_references:
        raise InvalidGeneration(
            f"{config.name} takes at most {max_references} reference images, not {len(settings.references)}"
        )


def identifier(config: ModelConfig) -> Mapping[str, Any]:
    """Return what names a model in a graph."""
    return {name: str(getattr(config, name)) for name in ("key", "hash", "name", "base", "type")}


def recipe_for(config: ModelConfig) -> Recipe:
    """Return how graphs are built for a model; raises ModelCannotGenerate."""
    recipe = recipes().get(config.base)
    if recipe is None:
        raise ModelCannotGenerate(config)
    return recipe


def architecture_of(config: ModelConfig) -> Architecture:
    """Return what is known of a model's architecture; raises ModelCannotGenerate."""
    architecture = registry.architectures().get(config.base)
    if architecture is None:
        raise ModelCannotGenerate(config)
    return architecture


def record_default(config: ModelConfig, name: str) -> Any:
    """Return a default setting that the model's record states; None where it states none."""
    return getattr(getattr(config, "default_settings", None), name, None)


def default_of(config: ModelConfig, name: str) -> Any:
    """Return a setting of the model's record, else its architecture's default; None where neither states it.

    Names are those of records: width, height, steps, cfg_scale, cfg_rescale_multiplier, scheduler, vae.
    """
    record_value = record_default(config, name)
    if record_value is not None:
        return record_value
    return getattr(architecture_of(config).defaults, "guidance" if name == "cfg_scale" else name, None)


def resolve_scheduler(config: ModelConfig, name: str) -> str:
    """Return a scheduler, or the model's default where its architecture does not have it."""
    schedulers = architecture_of(config).capabilities.schedulers
    if name in schedulers:
        return name
    default = str(default_of(config, "scheduler"))
    return default if default in schedulers else schedulers[0]


def is_refiner(config: ModelConfig) -> bool:
    """Return whether a model is made for the last part of another one's runs."""
    return any(architecture.capabilities.refiner == config.base for architecture in registry.architectures().values())


async def generation_models(connection: AsyncConnection, *, refiners: bool = False) -> list[ModelConfig]:
    """Return the main models that can make images; those that somebody installed come before the embedded one.

    With `refiners` these come last; they are never the default.
    """
    mains = await models.search(connection, type=ModelType.Main, bases=list(recipes()))
    usable = mains if refiners else [config for config in mains if not is_refiner(config)]
    return sorted(usable, key=lambda config: (is_refiner(config), config.key == EMBEDDED_KEY))


async def find_model(connection: AsyncConnection, name: str | None) -> ModelConfig:
    """Return the main model of this key or name (case doesn't matter), or without one the first that can make images.

    Raises ModelNotFound, ModelCannotGenerate or NoModelInstalled.
    """
    if name is None:
        usable = await generation_models(connection)
        if not usable:
            raise NoModelInstalled
        return usable[0]
    match = find_by_name(await models.search(connection, type=ModelType.Main), name)
    if match is None:
        raise ModelNotFound(name)
    recipe_for(match)
    return match
