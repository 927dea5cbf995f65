"""From a generation request to a batch: model, size, steps, scheduler and the rest are resolved here where they are left open.

Every way in that isn't a graph comes through: `invokeclone generate`, the page, and the compatibility APIs. What nodes make
the image is the family's recipe (`graph/recipes.py`); what a family can do is stated in its `spec.py`.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.architectures import Architecture
from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes import (
    PROMPT,
    SEED,
    VARIATION,
    AppliedControl,
    AppliedLoRA,
    CannotBuild,
    ControlMode,
    ControlResize,
    HiresFix,
    ImageSettings,
    InitImage,
    InpaintMask,
    Recipe,
    Variation,
    recipes,
)
from invokeclone.graph.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.graph.taxonomy import ModelType
from invokeclone.kit.errors import BadRequest, FailedDependency, NotFound
from invokeclone.models import registry
from invokeclone.models import store as models
from invokeclone.models.configs import ModelConfig
from invokeclone.models.embedded import EMBEDDED_KEY
from invokeclone.queue.batches import Batch

SEEDS = 2**32
MIN_SIDE = 64
MAX_PIXELS = 4096 * 4096
MAX_SIDE = 8192
MAX_LORAS = 32
MAX_CONTROLS = 16


class ModelNotFound(NotFound):
    """No main model goes by this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no main model {name!r}")


class LoRANotFound(NotFound):
    """No LoRA goes by this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no LoRA {name!r}: install it, or take it out of the request")


class ControlModelNotFound(NotFound):
    """No ControlNet or T2I-Adapter goes by this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no ControlNet or T2I-Adapter {name!r}: install it, or take it out of the request")


class ModelCannotGenerate(FailedDependency):
    """The model's family has no recipe yet."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(f"{config.name}: {config.base} models cannot make images here yet")


class NoModelInstalled(FailedDependency):
    """No model that could make an image is installed."""

    def __init__(self) -> None:
        super().__init__("no model that makes images is installed")


class InvalidGeneration(BadRequest):
    """What is requested makes no sense, or the model cannot do it."""


class SizeOverLimits(InvalidGeneration):
    """An image would be larger than any may be."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(f"{width}x{height} is too large: at most {MAX_PIXELS} pixels, and {MAX_SIDE} along a side")


class LoRAChoice(BaseModel):
    """A LoRA and how strongly it is applied."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Key or name of a LoRA.")
    weight: float = Field(default=1.0, ge=-10, le=10, description="How strongly it is applied.")
    text_weight: float | None = Field(
        default=None,
        ge=-10,
        le=10,
        description="How strongly it is applied to the text encoders; the same if left out.",
    )


class ControlChoice(BaseModel):
    """A ControlNet or a T2I-Adapter, and the image that it follows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Key or name of a ControlNet or a T2I-Adapter.")
    image: str = Field(description="Name of the image that it follows, as its model expects it: edges, depth, poses …")
    weight: float = Field(default=1.0, ge=-1, le=2, description="How strongly it is applied; T2I-Adapters from 0.")
    begin: float = Field(default=0.0, ge=0, le=1, description="When it starts, as a fraction of the steps.")
    end: float = Field(default=1.0, ge=0, le=1, description="When it stops, as a fraction of the steps.")
    mode: ControlMode = Field(
        default="balanced", description="Whether the prompt or the image matters more; ControlNets only."
    )
    resize: ControlResize = Field(default="just_resize", description="How the image is made to fit.")


class GenerationRequest(BaseModel):
    """What a caller states of images. What is None is resolved: from the model's default settings, else from its base's."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    prompt: str | Prompt = Field(
        description="What the image shows: text in the model's own prompt language, or weighted segments."
    )
    negative_prompt: str | Prompt = Field(default="", description="What the image does not show.")
    model: str | None = Field(default=None, description="Key or name of a main model.")
    count: int = Field(default=1, ge=1, le=1000, description="Number of images, each with a seed of its own.")
    seed: int | None = Field(
        default=None, ge=0, lt=SEEDS, description="The first one's seed; each next one's is one more."
    )
    width: int | None = Field(default=None, gt=0, description="Pixels, rounded to the model's grid.")
    height: int | None = Field(default=None, gt=0, description="Pixels, rounded to the model's grid.")
    steps: int | None = Field(default=None, ge=1, le=1000, description="Denoising steps.")
    cfg_scale: float | None = Field(default=None, ge=1, le=1000, description="Guidance scale.")
    scheduler: SCHEDULER_NAME_VALUES | None = Field(
        default=None, description="The scheduler's name; a model that does not have it uses its default."
    )
    clip_skip: int = Field(default=0, ge=0, le=24, description="Number of the text encoder's last layers to skip.")
    vae: str | None = Field(default=None, description="Key of a VAE to use instead of the model's own.")
    loras: list[LoRAChoice] = Field(default=[], max_length=MAX_LORAS, description="LoRAs to apply, in this order.")
    controls: list[ControlChoice] = Field(
        default=[], max_length=MAX_CONTROLS, description="ControlNets and T2I-Adapters to follow; they add up."
    )
    seamless: bool = Field(default=False, description="Whether opposite edges fit each other.")
    init_image: InitImage | None = Field(default=None, description="The image to begin with.")
    inpaint_mask: InpaintMask | None = Field(default=None, description="Which part of the initial image changes.")
    hires_fix: HiresFix | None = Field(default=None, description="A second run over the enlarged result.")
    variation_seed: int | None = Field(default=None, ge=0, lt=SEEDS, description="Seed of the variation.")
    variation_strength: float = Field(default=0.0, ge=0, le=1, description="Share of the variation's noise.")
    board_id: str | None = Field(default=None, description="The board to put the images on.")


@dataclass(frozen=True)
class ResolvedRequest:
    """Settings with nothing left open, the seeds to make images with, and the model."""

    settings: ImageSettings
    seeds: Sequence[int]
    variation_seeds: Sequence[int]
    config: ModelConfig

    def batch(self, *, origin: str | None, destination: str | None = "gallery") -> Batch:
        """Return the batch, an item per seed. Raises InvalidGeneration for what the model, its recipe or a node refuses."""
        check_capabilities(self.settings, self.config)
        try:
            graph = recipe_for(self.config).build(self.settings)
            data = [
                [
                    _datum(SEED, self.seeds),
                    *([_datum(VARIATION, self.variation_seeds)] if self.variation_seeds else []),
                ],
                [_datum(PROMPT, [graph["nodes"][PROMPT]["value"]])],
            ]
            return Batch.model_validate({"graph": graph, "data": data, "origin": origin, "destination": destination})
        except CannotBuild as error:
            raise InvalidGeneration(str(error)) from error
        except ValidationError as error:
            raise InvalidGeneration("; ".join(str(problem["msg"]) for problem in error.errors())) from error


def _datum(node: str, items: Sequence[Any]) -> dict[str, Any]:
    return {"node_path": node, "field_name": "value", "items": list(items)}


_CAPABILITIES = {
    "image_to_image": "initial images",
    "inpaint": "inpainting masks",
    "hires_fix": "a second run over the enlarged result",
    "partial_denoise": "runs over a part of the steps",
    "lora": "LoRAs",
    "control": "ControlNets and T2I-Adapters",
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
        "clip_skip": settings.clip_skip,
        "seamless": settings.seamless,
        "variation": settings.variation,
        "separate_vae": settings.vae,
        "cfg_rescale": settings.cfg_rescale,
    }
    for name, needed in needs.items():
        if needed:
            require_capability(config, name)


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


def default_of(config: ModelConfig, name: str) -> Any:
    """Return a setting of the model's record, else its architecture's default; None where neither states it.

    Names are those of records: width, height, steps, cfg_scale, cfg_rescale_multiplier, scheduler, vae.
    """
    stated = getattr(getattr(config, "default_settings", None), name, None)
    if stated is not None:
        return stated
    return getattr(architecture_of(config).defaults, "guidance" if name == "cfg_scale" else name, None)


def supported_scheduler(config: ModelConfig, name: str) -> str:
    """Return a scheduler, or the model's default where its architecture does not have it."""
    known = architecture_of(config).capabilities.schedulers
    if name in known:
        return name
    default = str(default_of(config, "scheduler"))
    return default if default in known else known[0]


async def generation_models(connection: AsyncConnection) -> list[ModelConfig]:
    """Return the main models that can make images; those that somebody installed come before the embedded one."""
    mains = await models.search(connection, type=ModelType.Main, bases=list(recipes()))
    return sorted(mains, key=lambda config: config.key == EMBEDDED_KEY)


async def find_model(connection: AsyncConnection, name: str | None) -> ModelConfig:
    """Return the main model of this key or name (case doesn't matter), or without one the first that can make images.

    Raises ModelNotFound, ModelCannotGenerate or NoModelInstalled.
    """
    if name is None:
        usable = await generation_models(connection)
        if not usable:
            raise NoModelInstalled
        return usable[0]
    mains = await models.search(connection, type=ModelType.Main)
    for same in (lambda m: name == m.key, lambda m: name == m.name, lambda m: name.casefold() == m.name.casefold()):
        if match := next(filter(same, mains), None):
            recipe_for(match)
            return match
    raise ModelNotFound(name)


async def resolve(
    connection: AsyncConnection, request: GenerationRequest, config: ModelConfig | None = None
) -> ResolvedRequest:
    """Resolve what `request` leaves open, the model too unless `config` is it.

    Raises what `find_model` raises, and InvalidGeneration for sizes that cannot be and for what the model cannot do.
    """
    config = config or await find_model(connection, request.model)
    architecture = architecture_of(config)

    def value(name: str) -> Any:
        stated = getattr(request, name, None)
        return default_of(config, name) if stated is None else stated

    width, height = fit_size(value("width"), value("height"), architecture.grid)
    first = secrets.randbelow(SEEDS) if request.seed is None else request.seed
    seeds = [(first + number) % SEEDS for number in range(request.count)]
    variation, variation_seeds = _variation(request)
    rescale = value("cfg_rescale_multiplier") if architecture.capabilities.cfg_rescale else None
    settings = ImageSettings(
        model=identifier(config),
        prompt=_prompt(request.prompt),
        negative_prompt=_prompt(request.negative_prompt),
        seed=first,
        width=width,
        height=height,
        steps=value("steps"),
        guidance=value("cfg_scale"),
        cfg_rescale=rescale or 0.0,
        scheduler=supported_scheduler(config, value("scheduler")),
        clip_skip=request.clip_skip,
        vae=await _vae(connection, value("vae"), required=request.vae is not None),
        seamless=request.seamless,
        loras=await _loras(connection, request.loras, config),
        controls=await _controls(connection, request.controls, config),
        init_image=request.init_image,
        inpaint_mask=request.inpaint_mask,
        hires_fix=_fitted_hires_fix(request.hires_fix, config, architecture),
        variation=variation,
        board_id=request.board_id,
    )
    check_capabilities(settings, config)
    return ResolvedRequest(
        settings, [first] * len(variation_seeds) if variation_seeds else seeds, variation_seeds, config
    )


def _prompt(text: str | Prompt) -> Prompt:
    return Prompt(native=text) if isinstance(text, str) else text


def _variation(request: GenerationRequest) -> tuple[Variation | None, list[int]]:
    """Return the variation and a seed of it for each image: with one, the images share their main seed."""
    if not request.variation_strength:
        return None, []
    first = secrets.randbelow(SEEDS) if request.variation_seed is None else request.variation_seed
    seeds = [(first + number) % SEEDS for number in range(request.count)]
    return Variation(first, request.variation_strength), seeds


def _fitted_hires_fix(fix: HiresFix | None, config: ModelConfig, architecture: Architecture) -> HiresFix | None:
    if fix is None:
        return None
    width, height = fit_size(fix.width, fix.height, architecture.grid)
    scheduler: Any = None if fix.scheduler is None else supported_scheduler(config, fix.scheduler)
    return replace(fix, width=width, height=height, scheduler=scheduler)


def fit_size(width: int, height: int, grid: int = 8) -> tuple[int, int]:
    """Return the size rounded to the grid, and not below the least side. Raises InvalidGeneration for one over the limits."""
    rounded = [max(MIN_SIDE, (side + grid // 2) // grid * grid) for side in (width, height)]
    if not within_limits(*rounded):
        raise SizeOverLimits(width, height)
    return rounded[0], rounded[1]


def within_limits(width: int, height: int) -> bool:
    """Return whether an image may be so large, in pixels."""
    return max(width, height) <= MAX_SIDE and width * height <= MAX_PIXELS


async def _loras(connection: AsyncConnection, choices: Sequence[LoRAChoice], config: ModelConfig) -> list[AppliedLoRA]:
    """Return LoRAs by their keys or names; raises LoRANotFound, and InvalidGeneration for one that does not fit the model."""
    if not choices:
        return []
    known = await models.search(connection, type=ModelType.LoRA)
    loras: dict[str, AppliedLoRA] = {}
    for choice in choices:
        lora = by_name(known, choice.model, str(config.base))
        if lora is None:
            raise LoRANotFound(choice.model)
        if lora.base != config.base:
            raise InvalidGeneration(f"the LoRA {lora.name} is for {lora.base} models, {config.name} is {config.base}")
        if lora.key in loras:
            raise InvalidGeneration(f"the LoRA {lora.name} is there twice: state it once, with one weight")
        loras[lora.key] = AppliedLoRA(identifier(lora), choice.weight, choice.text_weight)
    return list(loras.values())


async def _controls(
    connection: AsyncConnection, choices: Sequence[ControlChoice], config: ModelConfig
) -> list[AppliedControl]:
    """Return control models by their keys or names.

    Raises ControlModelNotFound, and InvalidGeneration for one that does not fit the model or what is stated of it.
    """
    if not choices:
        return []
    kinds = (ModelType.ControlNet, ModelType.T2IAdapter)
    known = [model for kind in kinds for model in await models.search(connection, type=kind)]
    controls = []
    for choice in choices:
        model = by_name(known, choice.model, str(config.base))
        if model is None:
            raise ControlModelNotFound(choice.model)
        if model.base != config.base:
            raise InvalidGeneration(f"{model.name} is for {model.base} models, {config.name} is {config.base}")
        if choice.begin >= choice.end:
            raise InvalidGeneration(f"{model.name}: it must begin before it ends, not at {choice.begin}")
        if model.type == ModelType.T2IAdapter and (choice.weight < 0 or choice.mode != "balanced"):
            raise InvalidGeneration(f"{model.name} is a T2I-Adapter: its weight is at least 0, and it has no mode")
        made = identifier(model), choice.image, choice.weight, choice.begin, choice.end, choice.mode, choice.resize
        controls.append(AppliedControl(*made))
    return controls


def by_name(known: Sequence[ModelConfig], name: str, base: str) -> ModelConfig | None:
    """Return the model of this key, name or file name (case does not matter), rather one of `base`; None if there is none."""
    fitting = sorted(known, key=lambda model: model.base != base)
    plain = name.casefold()
    for names in (
        lambda model: (model.key, model.name),
        lambda model: (model.name.casefold(), PurePath(model.path).stem.casefold()),
    ):
        if found := next((model for model in fitting if {name, plain} & set(names(model))), None):
            return found
    return None


async def _vae(connection: AsyncConnection, key: str | None, *, required: bool) -> Mapping[str, Any] | None:
    """Return the VAE of this key; one that only the model's settings name may be gone."""
    if key is None or (not required and not await models.exists(connection, key)):
        return None
    return identifier(await models.get(connection, key))
