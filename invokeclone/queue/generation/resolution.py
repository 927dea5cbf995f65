"""Resolution of generation requests: missing settings such as model, size, steps and scheduler get their defaults."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.recipes import PROMPT, SEED, VARIATION, CannotBuild, HiresFix, ImageSettings, Variation
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.queue.batches import Batch
from invokeclone.queue.generation import extras, second_pass
from invokeclone.queue.generation.errors import InvalidGeneration, SizeOverLimits
from invokeclone.queue.generation.limits import MIN_SIDE, SEEDS, is_within_limits
from invokeclone.queue.generation.mains import (
    architecture_of,
    check_capabilities,
    default_of,
    find_model,
    identifier,
    recipe_for,
    require_capability,
    resolve_scheduler,
)
from invokeclone.queue.generation.request import GenerationRequest
from invokeclone.queue.generation.second_pass import to_prompt


@dataclass(frozen=True)
class ResolvedRequest:
    """Complete settings, the seeds of the images, and the model's record."""

    settings: ImageSettings
    seeds: Sequence[int]
    variation_seeds: Sequence[int]
    config: ModelConfig
    second_config: ModelConfig | None = None
    """The record of the second pass's model; None without a second pass of its own."""

    @property
    def warnings(self) -> list[str]:
        """What the request asks for and the batch leaves out."""
        passes = [(self.config, self.settings), (self.second_config, self.settings.second_pass)]
        return [
            weights_dropped(config)
            for config, settings in passes
            if config is not None
            and settings is not None
            and any(recipe_for(config).drops_weights(prompt) for prompt in (settings.prompt, settings.negative_prompt))
        ]

    def batch(self, *, origin: str | None, destination: str | None = "gallery") -> Batch:
        """Return the batch, with an item per seed. Raises InvalidGeneration for settings that are not supported."""
        check_capabilities(self.settings, self.config)
        if self.second_config is not None:
            second_pass.check(self.settings, self.config, self.second_config)
        if self.settings.init_image is None:
            require_capability(self.config, "text_to_image")
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


def weights_dropped(config: ModelConfig) -> str:
    """Return the warning that a prompt's weights have no effect."""
    return f"{config.base} models have no weights in prompts: the prompt was used without them"


def _datum(node: str, items: Sequence[Any]) -> dict[str, Any]:
    return {"node_path": node, "field_name": "value", "items": list(items)}


async def resolve(
    connection: AsyncConnection, request: GenerationRequest, config: ModelConfig | None = None
) -> ResolvedRequest:
    """Resolve missing settings of `request`; the model is `config` if given.

    Raises the errors of `find_model` and `extras`, SizeOverLimits, and InvalidGeneration for unsupported settings.
    """
    config = config or await find_model(connection, request.model)
    architecture = architecture_of(config)

    def value(name: str) -> Any:
        requested_value = getattr(request, name, None)
        return default_of(config, name) if requested_value is None else requested_value

    width, height = fit_size(value("width"), value("height"), architecture.grid)
    first = secrets.randbelow(SEEDS) if request.seed is None else request.seed
    seeds = [(first + number) % SEEDS for number in range(request.count)]
    variation, variation_seeds = _variation(request)
    rescale = value("cfg_rescale_multiplier") if architecture.capabilities.cfg_rescale else None
    settings = ImageSettings(
        model=identifier(config),
        variant=getattr(config, "variant", None),
        prompt=to_prompt(request.prompt),
        negative_prompt=to_prompt(request.negative_prompt),
        seed=first,
        width=width,
        height=height,
        steps=value("steps"),
        guidance=value("cfg_scale"),
        cfg_scale=_true_cfg_scale(request, config),
        cfg_rescale=rescale or 0.0,
        scheduler=resolve_scheduler(config, value("scheduler")),
        clip_skip=request.clip_skip,
        vae=await extras.vae(connection, request.vae, default_of(config, "vae"), config),
        seamless=request.seamless,
        loras=await extras.loras(connection, request.loras, config),
        controls=await extras.controls(connection, request.controls, config),
        references=await extras.references(connection, request.reference_images, config),
        refiner=await extras.refiner(connection, request.refiner, config),
        init_image=request.init_image,
        inpaint_mask=request.inpaint_mask,
        hires_fix=request.hires_fix,
        variation=variation,
        board_id=request.board_id,
    )
    check_capabilities(settings, config)
    second_config, second = await second_pass.resolve(connection, request.second_pass, settings, config)
    settings = replace(
        settings, second_pass=second, hires_fix=_fit_hires_fix(request.hires_fix, config, second_config or config)
    )
    all_seeds = [first] * len(variation_seeds) if variation_seeds else seeds
    return ResolvedRequest(settings, all_seeds, variation_seeds, config, second_config)


def _true_cfg_scale(request: GenerationRequest, config: ModelConfig) -> float:
    """Return the guidance by the negative prompt. Raises InvalidGeneration if `cfg_scale` is that already."""
    scale = request.true_cfg_scale or 1.0
    if scale > 1.0 and architecture_of(config).capabilities.guidance != "distilled":
        raise InvalidGeneration(f"{config.name} has no other guidance than `cfg_scale`: remove `true_cfg_scale`")
    return scale


def _variation(request: GenerationRequest) -> tuple[Variation | None, list[int]]:
    """Return the variation and its seed for each image; images with a variation share the main seed."""
    if not request.variation_strength:
        return None, []
    first = secrets.randbelow(SEEDS) if request.variation_seed is None else request.variation_seed
    seeds = [(first + number) % SEEDS for number in range(request.count)]
    return Variation(first, request.variation_strength), seeds


def _fit_hires_fix(fix: HiresFix | None, first: ModelConfig, second: ModelConfig) -> HiresFix | None:
    if fix is None:
        return None
    width, height = fit_size(fix.width, fix.height, second_pass.grid_of(first, second))
    scheduler: Any = None if fix.scheduler is None else resolve_scheduler(second, fix.scheduler)
    return replace(fix, width=width, height=height, scheduler=scheduler)


def fit_size(width: int, height: int, grid: int = 8) -> tuple[int, int]:
    """Return the size rounded to the grid, at least MIN_SIDE. Raises SizeOverLimits."""
    rounded = [max(MIN_SIDE, (side + grid // 2) // grid * grid) for side in (width, height)]
    if not is_within_limits(*rounded):
        raise SizeOverLimits(width, height)
    return rounded[0], rounded[1]
