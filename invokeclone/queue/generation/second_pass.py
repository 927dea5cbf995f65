"""The second run of a hires fix with a model, prompts or LoRAs of its own."""

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes import ImageSettings
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.queue.generation import extras
from invokeclone.queue.generation.errors import InvalidGeneration
from invokeclone.queue.generation.mains import (
    architecture_of,
    check_capabilities,
    default_of,
    find_model,
    identifier,
    require_capability,
    resolve_scheduler,
    share_latents,
    vae_base_of,
)
from invokeclone.queue.generation.request import SecondPassChoice


def to_prompt(text: str | Prompt) -> Prompt:
    """Return a text as a prompt in the model's own language."""
    return Prompt(native=text) if isinstance(text, str) else text


async def resolve(
    connection: AsyncConnection, choice: SecondPassChoice | None, first: ImageSettings, config: ModelConfig
) -> tuple[ModelConfig, ImageSettings] | tuple[None, None]:
    """Return the record and the settings of the second run; those of the first run's settings that its model lacks are left out.

    Raises the errors of `find_model` and `extras`, and InvalidGeneration for settings that the model does not support.
    """
    if choice is None:
        return None, None
    second = config if choice.model is None else await find_model(connection, choice.model)
    if second.base != config.base and (first.controls or first.references):
        raise InvalidGeneration(
            f"the second pass with {second.name} ({second.base}) cannot use the control models and reference images of "
            f"{config.name} ({config.base}): remove them, or select a {config.base} model"
        )
    settings = replace(
        _fit(first, config, second),
        prompt=first.prompt if choice.prompt is None else to_prompt(choice.prompt),
        negative_prompt=first.negative_prompt if choice.negative_prompt is None else to_prompt(choice.negative_prompt),
        hires_fix=None,
    )
    if choice.loras is not None:
        settings = replace(settings, loras=await extras.loras(connection, choice.loras, second))
    require_capability(second, "image_to_image")
    check_capabilities(settings, second)
    return second, settings


def _fit(settings: ImageSettings, config: ModelConfig, second: ModelConfig) -> ImageSettings:
    """Return the first run's settings for another model."""
    capabilities, of_first = (architecture_of(model).capabilities for model in (second, config))
    vae = settings.vae if settings.vae and settings.vae["base"] == vae_base_of(second) else None
    is_same_kind = capabilities.guidance == of_first.guidance
    return replace(
        settings,
        model=identifier(second),
        variant=getattr(second, "variant", None),
        guidance=settings.guidance if is_same_kind else float(default_of(second, "cfg_scale")),
        cfg_scale=settings.cfg_scale if is_same_kind else 1.0,
        cfg_rescale=settings.cfg_rescale if capabilities.cfg_rescale else 0.0,
        scheduler=resolve_scheduler(second, settings.scheduler),
        clip_skip=settings.clip_skip if capabilities.clip_skip else 0,
        vae=vae if capabilities.separate_vae else None,
        seamless=settings.seamless and capabilities.seamless,
        loras=settings.loras if second.base == config.base else (),
        refiner=settings.refiner if capabilities.refiner == of_first.refiner else None,
    )


def grid_of(first: ModelConfig, second: ModelConfig) -> int:
    """Return the multiple of pixels that the sides of the second run must have: its model's and the first one's."""
    return max(architecture_of(config).grid for config in (first, second))


def check(settings: ImageSettings, config: ModelConfig, second: ModelConfig) -> None:
    """Raise InvalidGeneration for a second pass without a hires fix, and for latents that its model cannot read."""
    if settings.hires_fix is None:
        raise InvalidGeneration("a second pass needs a hires fix: set `hires_fix`, or remove `second_pass`")
    if not settings.hires_fix.in_pixels and not share_latents(config, second):
        raise InvalidGeneration(
            f"{second.name} ({second.base}) cannot read the latents of {config.name} ({config.base}): enlarge the image "
            "instead of the latents (`in_pixels`; for AUTOMATIC1111's API, another upscaler than Latent)"
        )
