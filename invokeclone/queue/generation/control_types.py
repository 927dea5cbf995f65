"""Control models by what their control images show, for requests that name this instead of a model."""

from collections.abc import Sequence

from invokeclone.graph.recipes import ControlKind
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.records.matching import find_by_name
from invokeclone.queue.generation.errors import ExtraModelNotInstalled
from invokeclone.queue.generation.mains import recipe_for

_UNION = "union"
"""Part of the names of union ControlNets."""
CONTROL_TYPES: dict[str, ControlKind | None] = {
    "canny": "canny",
    "depth": "depth",
    "pose": "pose",
    "openpose": "pose",
    "tile": "tile",
    "blur": "blur",
    "gray": "gray",
    "softedge": "soft_edge",
    "normal": "normal",
    "inpaint": "inpaint",
    "lineart": None,
    "scribble": None,
    "sketch": None,
    "mlsd": None,
    "shuffle": None,
    "color": None,
}
"""The types, and the kind of a union ControlNet's image that each is."""


def find_by_type(
    installed: Sequence[ModelConfig], name: str, config: ModelConfig
) -> tuple[ModelConfig, ControlKind | None] | None:
    """Return the first control model for a main model by the type of its images, and their kind if it is a union model.

    None if the name is no type, or that of an installed model. Raises ExtraModelNotInstalled.
    """
    word = name.strip().casefold()
    if word not in CONTROL_TYPES or find_by_name(installed, name):
        return None
    candidates = [candidate for candidate in installed if candidate.base == config.base]
    for candidate in candidates:
        if word in f"{candidate.name} {_preprocessor(candidate)}".casefold():
            return candidate, None
    kind = CONTROL_TYPES[word]
    if kind is not None and kind in recipe_for(config).control_kinds:
        union = next((candidate for candidate in candidates if _UNION in candidate.name.casefold()), None)
        if union is not None:
            return union, kind
    raise ExtraModelNotInstalled(
        f"no control model of the type {word} for {config.base} models is installed: install one (the starter models "
        "have some), or name a model"
    )


def _preprocessor(config: ModelConfig) -> str:
    """Return the name of the preprocessor in a record's settings."""
    return getattr(getattr(config, "default_settings", None), "preprocessor", None) or ""
