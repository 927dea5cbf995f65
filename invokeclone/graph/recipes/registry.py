"""Registry of the families' recipes by base."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from invokeclone.graph.invocations import discovery
from invokeclone.graph.vocabulary.taxonomy import BaseModelType

if TYPE_CHECKING:
    from invokeclone.graph.recipes.blocks import Recipe

_recipes: "dict[BaseModelType, Recipe]" = {}


def recipe(*bases: BaseModelType) -> "Callable[[type[Recipe]], type[Recipe]]":
    """Register the decorated class for models of `bases`."""

    def register(cls: "type[Recipe]") -> "type[Recipe]":
        _recipes.update(dict.fromkeys(bases, cls()))
        return cls

    return register


@cache
def recipes() -> "Mapping[BaseModelType, Recipe]":
    """Return every recipe by base; families are discovered once."""
    for _ in discovery.modules("recipe"):
        pass  # importing registers
    return _recipes
