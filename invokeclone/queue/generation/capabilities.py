"""What a model can do in a generation request, from its family's description and its record."""

from dataclasses import fields
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.vocabulary.architectures import Architecture, Capabilities, GuidanceKind
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType
from invokeclone.kit.config.limits import Limits
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records import store as models
from invokeclone.queue.generation.errors import InvalidGeneration
from invokeclone.queue.generation.limits import MAX_CONTROLS, MAX_LORAS, MAX_PIXELS, MAX_SIDE, MIN_SIDE
from invokeclone.queue.generation.mains import (
    architecture_of,
    default_of,
    generation_models,
    recipe_for,
    resolve_scheduler,
    vae_base_of,
)
from invokeclone.queue.generation.request import GenerationRequest


class Bounds(BaseModel):
    """The least and the greatest value."""

    minimum: float
    maximum: float


class GenerationDefaults(BaseModel):
    """Settings that apply if a request leaves them out: the record's, else its architecture's."""

    width: int = Field(description="In pixels.")
    height: int = Field(description="In pixels.")
    steps: int = Field(description="Number of denoising steps.")
    cfg_scale: float | None = Field(description="Guidance scale; null if the model has none.")
    cfg_rescale_multiplier: float | None = Field(description="Guidance rescaling; null if not supported.")
    scheduler: str = Field(description="Name of the scheduler.")
    vae: str | None = Field(description="Key of the VAE; null for the model's own.")


class GenerationLimits(BaseModel):
    """Limits of requests; the counts are 0 for unsupported features."""

    side: Bounds = Field(description="Width and height in pixels; other sizes are rounded to `side_multiple`.")
    side_multiple: int = Field(description="Sides are multiples of this number of pixels.")
    pixels: int = Field(description="Width times height, at most.")
    steps: Bounds
    cfg_scale: Bounds | None
    images: int = Field(description="Images per request of the compatibility APIs.")
    prompt_characters: int
    loras: int
    controls: int
    reference_images: int


class ModelCapabilities(BaseModel):
    """What a model can do in a generation request."""

    key: str
    name: str
    base: BaseModelType
    guidance: GuidanceKind = Field(
        description="`cfg`: guidance with a negative prompt; `distilled`: the scale is an input; `none`: no scale."
    )
    schedulers: list[str] = Field(description="Names of the schedulers it supports.")
    refiner: BaseModelType | None = Field(description="Base of the refiners that it can use.")
    vae_base: BaseModelType | None = Field(description="Base of the VAEs that it can use; null if it takes none.")
    features: dict[str, bool] = Field(description="Whether it supports each feature, by name.")
    defaults: GenerationDefaults
    limits: GenerationLimits


class GenerationModels(BaseModel):
    """The models that can generate images."""

    models: list[ModelCapabilities]


async def describe_all(connection: AsyncConnection, limits: Limits) -> GenerationModels:
    """Return the models that can generate images, the default one first, and what each can do."""
    return GenerationModels(models=[describe(config, limits) for config in await generation_models(connection)])


async def find_capabilities(connection: AsyncConnection, limits: Limits, key: str) -> ModelCapabilities:
    """Return what a model can do.

    Raises UnknownModel, InvalidGeneration for a model that is not a main model, and ModelCannotGenerate.
    """
    config = await models.get(connection, key)
    if config.type != ModelType.Main:
        raise InvalidGeneration(f"{config.name} is of the type {config.type}: only main models generate images")
    recipe_for(config)
    return describe(config, limits)


def describe(config: ModelConfig, limits: Limits) -> ModelCapabilities:
    """Return what a main model can do."""
    architecture = architecture_of(config)
    capabilities = architecture.capabilities
    return ModelCapabilities(
        key=config.key,
        name=config.name,
        base=config.base,
        guidance=capabilities.guidance,
        schedulers=list(capabilities.schedulers),
        refiner=capabilities.refiner,
        vae_base=BaseModelType(vae_base_of(config)) if capabilities.separate_vae else None,
        features=_features(capabilities),
        defaults=_defaults(config, capabilities),
        limits=_limits(architecture, limits),
    )


def _features(capabilities: Capabilities) -> dict[str, bool]:
    """Return every capability that is a feature, so that a new one needs no line here."""
    separate_fields = {"guidance", "schedulers"}
    values = {
        field.name: bool(getattr(capabilities, field.name))
        for field in fields(capabilities)
        if field.name not in separate_fields
    }
    return {"negative_prompt": capabilities.guidance == "cfg", **values}


def _defaults(config: ModelConfig, capabilities: Capabilities) -> GenerationDefaults:
    values = {name: default_of(config, name) for name in ("width", "height", "steps", "vae")}
    return GenerationDefaults(
        **values,
        cfg_scale=None if capabilities.guidance == "none" else default_of(config, "cfg_scale"),
        cfg_rescale_multiplier=(default_of(config, "cfg_rescale_multiplier") or 0)
        if capabilities.cfg_rescale
        else None,
        scheduler=resolve_scheduler(config, str(default_of(config, "scheduler"))),
    )


def _limits(architecture: Architecture, limits: Limits) -> GenerationLimits:
    capabilities = architecture.capabilities
    return GenerationLimits(
        side=Bounds(minimum=MIN_SIDE, maximum=MAX_SIDE),
        side_multiple=architecture.grid,
        pixels=MAX_PIXELS,
        steps=_bounds("steps"),
        cfg_scale=None if capabilities.guidance == "none" else _bounds("cfg_scale"),
        images=limits.request_images,
        prompt_characters=limits.prompt_characters,
        loras=MAX_LORAS if capabilities.lora else 0,
        controls=MAX_CONTROLS if capabilities.control else 0,
        reference_images=capabilities.reference_images,
    )


def _bounds(name: str) -> Bounds:
    """Return the bounds of a field of generation requests."""
    metadata: list[Any] = GenerationRequest.model_fields[name].metadata
    minimum, maximum = (
        next(getattr(item, bound) for item in metadata if hasattr(item, bound)) for bound in ("ge", "le")
    )
    return Bounds(minimum=minimum, maximum=maximum)
