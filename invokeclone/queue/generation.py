"""From what somebody says of a picture to a batch: model, size, steps, scheduler and the rest are chosen here where they are open.

Every way in that isn't a graph comes through: `invokeclone generate`, the page, and the other dialects. What nodes make the
picture is the family's recipe (`graph/recipes.py`).
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.recipes import (
    PROMPT,
    SEED,
    VARIATION,
    CannotBeDrawn,
    Enlarge,
    Keep,
    Picture,
    PromptLanguage,
    Recipe,
    Start,
    Variation,
    put_within,
    recipes,
)
from invokeclone.graph.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.graph.taxonomy import ModelType
from invokeclone.kit.errors import BadRequest, FailedDependency, NotFound
from invokeclone.models import store as models
from invokeclone.models.configs import ModelConfig
from invokeclone.models.embedded import EMBEDDED_KEY
from invokeclone.queue.batches import Batch

SEEDS = 2**32
LEAST_SIDE = 64
MOST_PIXELS = 4096 * 4096
MOST_SIDE = 8192


class ModelNotFound(NotFound):
    """No main model goes by this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no main model {name!r}")


class ModelCannotDraw(FailedDependency):
    """The model's family has no recipe yet."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(f"{config.name}: {config.base} models cannot make pictures here yet")


class NoModel(FailedDependency):
    """No model that could make a picture is installed."""

    def __init__(self) -> None:
        super().__init__("no model that makes pictures is installed")


class NotAPicture(BadRequest):
    """What is said of the picture makes no sense."""


class SizeOverLimits(NotAPicture):
    """A picture would be larger than any may be."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(f"{width}x{height} is too large: at most {MOST_PIXELS} pixels, and {MOST_SIDE} along a side")


class Wanted(BaseModel):
    """What a caller says of pictures. What is None is chosen: from the model's default settings, else as is usual for its base."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    prompt: str = Field(description="What to draw.")
    negative_prompt: str = Field(default="", description="What not to draw.")
    language: PromptLanguage = Field(
        default="native", description="Whether prompts are written in the model's own language of weights, or plain."
    )
    model: str | None = Field(default=None, description="Key or name of a main model.")
    count: int = Field(default=1, ge=1, le=1000, description="How many pictures, each with a seed of its own.")
    seed: int | None = Field(
        default=None, ge=0, lt=SEEDS, description="The first one's seed; each next one's is one more."
    )
    width: int | None = Field(default=None, gt=0, description="Pixels, made to fit the model's grid.")
    height: int | None = Field(default=None, gt=0, description="Pixels, made to fit the model's grid.")
    steps: int | None = Field(default=None, ge=1, le=1000, description="Denoising steps.")
    cfg_scale: float | None = Field(default=None, ge=1, le=1000, description="Classifier-free guidance scale.")
    scheduler: SCHEDULER_NAME_VALUES | None = Field(default=None, description="The scheduler's name.")
    clip_skip: int = Field(default=0, ge=0, le=24, description="How many of the text encoder's last layers to skip.")
    vae: str | None = Field(default=None, description="Key of a VAE to use instead of the model's own.")
    seamless: bool = Field(default=False, description="Whether opposite edges fit each other.")
    start: Start | None = Field(default=None, description="The picture to begin with, and how much of it is made new.")
    keep: Keep | None = Field(default=None, description="What of that picture stays.")
    enlarge: Enlarge | None = Field(default=None, description="A second run over the enlarged result.")
    variation_seed: int | None = Field(default=None, ge=0, lt=SEEDS, description="Seed of the variation.")
    variation_strength: float = Field(default=0.0, ge=0, le=1, description="How much of the variation is blended in.")
    board_id: str | None = Field(default=None, description="The board to put the pictures on.")


@dataclass(frozen=True)
class Chosen:
    """A picture with nothing left open, the seeds to make it with, and the model."""

    picture: Picture
    seeds: Sequence[int]
    variation_seeds: Sequence[int]
    config: ModelConfig

    def batch(self, *, origin: str | None, destination: str | None = "gallery") -> Batch:
        """Return the batch, an item per seed. Raises NotAPicture for what the recipe or a node refuses."""
        try:
            graph = recipe_for(self.config).draw(self.picture)
            if self.picture.within:
                graph = put_within(graph, self.picture.within)
            data = [
                [
                    _datum(SEED, self.seeds),
                    *([_datum(VARIATION, self.variation_seeds)] if self.variation_seeds else []),
                ],
                [_datum(PROMPT, [graph["nodes"][PROMPT]["value"]])],
            ]
            return Batch.model_validate({"graph": graph, "data": data, "origin": origin, "destination": destination})
        except CannotBeDrawn as error:
            raise NotAPicture(str(error)) from error
        except ValidationError as error:
            raise NotAPicture("; ".join(str(problem["msg"]) for problem in error.errors())) from error


def _datum(node: str, items: Sequence[Any]) -> dict[str, Any]:
    return {"node_path": node, "field_name": "value", "items": list(items)}


def identifier(config: ModelConfig) -> Mapping[str, Any]:
    """Return what names a model in a graph."""
    return {name: str(getattr(config, name)) for name in ("key", "hash", "name", "base", "type")}


def recipe_for(config: ModelConfig) -> Recipe:
    """Return how the model's family makes pictures; raises ModelCannotDraw."""
    found = recipes().get(config.base)
    if found is None:
        raise ModelCannotDraw(config)
    return found


async def drawing_models(connection: AsyncConnection) -> list[ModelConfig]:
    """Return the main models that can make pictures; those that somebody installed come before the embedded one."""
    known = await models.search(connection, type=ModelType.Main, bases=list(recipes()))
    return sorted(known, key=lambda config: config.key == EMBEDDED_KEY)


async def find_model(connection: AsyncConnection, name: str | None) -> ModelConfig:
    """Return the main model of this key or name (case doesn't matter), or without one the first that can make pictures.

    Raises ModelNotFound, ModelCannotDraw or NoModel.
    """
    if name is None:
        known = await drawing_models(connection)
        if not known:
            raise NoModel
        return known[0]
    mains = await models.search(connection, type=ModelType.Main)
    for same in (lambda m: name == m.key, lambda m: name == m.name, lambda m: name.casefold() == m.name.casefold()):
        if found := next(filter(same, mains), None):
            recipe_for(found)
            return found
    raise ModelNotFound(name)


async def choose(connection: AsyncConnection, wanted: Wanted, config: ModelConfig | None = None) -> Chosen:
    """Choose what `wanted` leaves open, the model too unless `config` is it.

    Raises what `find_model` raises, and NotAPicture for sizes that cannot be.
    """
    config = config or await find_model(connection, wanted.model)
    usual = recipe_for(config).usual
    stated = getattr(config, "default_settings", None)

    def chosen(name: str, otherwise: Any) -> Any:
        given = getattr(wanted, name, None)
        return next((value for value in (given, getattr(stated, name, None)) if value is not None), otherwise)

    width, height = legal_size(chosen("width", usual.side), chosen("height", usual.side), usual.grid)
    first = secrets.randbelow(SEEDS) if wanted.seed is None else wanted.seed
    seeds = [(first + number) % SEEDS for number in range(wanted.count)]
    variation, varied = _variation(wanted)
    picture = Picture(
        model=identifier(config),
        prompt=wanted.prompt,
        negative_prompt=wanted.negative_prompt,
        language=wanted.language,
        seed=first,
        width=width,
        height=height,
        steps=chosen("steps", usual.steps),
        cfg_scale=chosen("cfg_scale", usual.cfg_scale),
        cfg_rescale=chosen("cfg_rescale_multiplier", 0.0),
        scheduler=chosen("scheduler", usual.scheduler),
        clip_skip=wanted.clip_skip,
        vae=await _vae(connection, chosen("vae", None), required=wanted.vae is not None),
        seamless=wanted.seamless,
        start=wanted.start,
        keep=wanted.keep,
        enlarge=_legal_enlarge(wanted.enlarge, usual.grid),
        variation=variation,
        board_id=wanted.board_id,
    )
    return Chosen(picture, [first] * len(varied) if varied else seeds, varied, config)


def _variation(wanted: Wanted) -> tuple[Variation | None, list[int]]:
    """Return the variation and a seed of it for each picture: with one, the pictures share their main seed."""
    if not wanted.variation_strength:
        return None, []
    first = secrets.randbelow(SEEDS) if wanted.variation_seed is None else wanted.variation_seed
    return Variation(first, wanted.variation_strength), [(first + number) % SEEDS for number in range(wanted.count)]


def _legal_enlarge(enlarge: Enlarge | None, grid: int) -> Enlarge | None:
    if enlarge is None:
        return None
    width, height = legal_size(enlarge.width, enlarge.height, grid)
    return replace(enlarge, width=width, height=height)


def legal_size(width: int, height: int, grid: int = 8) -> tuple[int, int]:
    """Return the size made to fit the grid: to the nearest multiple, and not below the least side.

    Raises NotAPicture for a size over the limits.
    """
    fitting = [max(LEAST_SIDE, (side + grid // 2) // grid * grid) for side in (width, height)]
    if not within_limits(*fitting):
        raise SizeOverLimits(width, height)
    return fitting[0], fitting[1]


def within_limits(width: int, height: int) -> bool:
    """Tell whether a picture may be so large, in pixels."""
    return max(width, height) <= MOST_SIDE and width * height <= MOST_PIXELS


async def _vae(connection: AsyncConnection, key: str | None, *, required: bool) -> Mapping[str, Any] | None:
    """Return the VAE of this key; one that only the model's settings name may be gone."""
    if key is None or (not required and not await models.exists(connection, key)):
        return None
    return identifier(await models.get(connection, key))
