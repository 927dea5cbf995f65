"""Main models: lookup by key or name, capabilities, and default settings."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.recipes import ImageSettings, Recipe, find_recipe, recipes
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
    "text_to_image": "images without an initial image and a mask",
    "image_to_image": "initial images",
    "inpaint": "inpainting masks",
    "hires_fix": "a second run over the enlarged result",
    "partial_denoise": "runs over a part of the steps",
    "lora": "LoRAs",
    "control": "ControlNets and T2I-Adapters",
    "reference_images": "reference images",
    "reads_references": "reference images without an IP-Adapter",
    "style_images": "style models",
    "refiner": "refiners",
    "regional_prompts": "prompts for regions",
    "clip_skip": "CLIP skip",
    "seamless": "seamless images",
    "variation": "variations of a seed",
    "separate_vae": "another VAE",
    "cfg_rescale": "guidance rescaling",
}
"""Names of capabilities, with their names in messages."""


def require_capability(config: ModelConfig, name: str) -> None:
    """Raise InvalidGeneration unless the model has the capability."""
    architecture = architecture_of(config)
    if getattr(architecture.capabilities, name):
        return
    described = registry.architectures()[config.base]
    all_kinds = (described.capabilities, *(kind.capabilities for kind in described.kinds))
    is_of_others = any(getattr(capabilities, name) for capabilities in all_kinds)
    kind = "models of its kind" if is_of_others else "models"
    raise InvalidGeneration(f"{config.name}: {architecture.base} {kind} do not support {_CAPABILITIES[name]}")


def check_capabilities(settings: ImageSettings, config: ModelConfig) -> None:
    """Raise InvalidGeneration for the first setting that the model's architecture does not support."""
    needs = {
        "image_to_image": settings.init_image and not settings.inpaint_mask,
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
    """Return the reference to a model in a graph."""
    return {name: str(getattr(config, name)) for name in ("key", "hash", "name", "base", "type")}


def recipe_for(config: ModelConfig) -> Recipe:
    """Return the recipe for a model. Raises ModelCannotGenerate."""
    recipe = find_recipe(config.base, getattr(config, "variant", None))
    if recipe is None:
        raise ModelCannotGenerate(config)
    return recipe


def architecture_of(config: ModelConfig) -> Architecture:
    """Return the architecture of a model. Raises ModelCannotGenerate."""
    architecture = registry.architectures().get(config.base)
    if architecture is None:
        raise ModelCannotGenerate(config)
    return architecture.of_model(getattr(config, "variant", None), config.name)


def vae_base_of(config: ModelConfig) -> str:
    """Return the base of the VAEs that a main model can use."""
    kinds = recipe_for(config).separate_parts.values()
    return str(next((kind.base for kind in kinds if kind.type == ModelType.VAE and kind.base), config.base))


def share_latents(first: ModelConfig, second: ModelConfig) -> bool:
    """Return whether two models, main models or VAEs, have the same latents."""
    spaces = [architecture_of(config).latent_space for config in (first, second)]
    return len({(space.channels, space.scale, space.shift) for space in spaces}) == 1


def record_default(config: ModelConfig, name: str) -> Any:
    """Return a default setting of the model's record, or None."""
    return getattr(getattr(config, "default_settings", None), name, None)


def default_of(config: ModelConfig, name: str) -> Any:
    """Return a default setting of the model's record, else of its architecture, else None.

    Names are those of records: width, height, steps, cfg_scale, cfg_rescale_multiplier, scheduler, vae. The `cfg_scale`
    of a model whose guidance is an input of the network is its record's `guidance`.
    """
    is_distilled = architecture_of(config).capabilities.guidance == "distilled"
    record_value = record_default(config, "guidance" if name == "cfg_scale" and is_distilled else name)
    if record_value is not None:
        return record_value
    defaults = architecture_of(config).defaults_of(getattr(config, "variant", None))
    return getattr(defaults, "guidance" if name == "cfg_scale" else name, None)


def resolve_scheduler(config: ModelConfig, name: str) -> str:
    """Return the scheduler `name`, or the model's default if its architecture does not support it."""
    schedulers = architecture_of(config).capabilities.schedulers
    if name in schedulers:
        return name
    default = str(default_of(config, "scheduler"))
    return default if default in schedulers else schedulers[0]


def is_refiner(config: ModelConfig) -> bool:
    """Return whether a model is a refiner of another base's models."""
    return any(architecture.capabilities.refiner == config.base for architecture in registry.architectures().values())


async def generation_models(connection: AsyncConnection, *, refiners: bool = False) -> list[ModelConfig]:
    """Return the main models that can generate images: installed ones before the embedded one.

    With `refiners`, refiners are included, at the end; they are never the default.
    """
    mains = await models.search(connection, type=ModelType.Main, bases=list(recipes()))
    usable = mains if refiners else [config for config in mains if not is_refiner(config)]
    return sorted(usable, key=lambda config: (is_refiner(config), config.key == EMBEDDED_KEY))


async def find_model(connection: AsyncConnection, name: str | None) -> ModelConfig:
    """Return the main model with this key or name (case-insensitive), or for None the first that can generate images.

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
