"""Registry of the families' recipes by base."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from invokeclone.graph.invocations import discovery
from invokeclone.graph.vocabulary.taxonomy import BaseModelType

if TYPE_CHECKING:
    from invokeclone.graph.recipes.blocks import Recipe

_recipes: "dict[BaseModelType, Recipe]" = {}
_variant_recipes: "dict[tuple[BaseModelType, str], Recipe]" = {}


def recipe(*bases: BaseModelType, variant: str | None = None) -> "Callable[[type[Recipe]], type[Recipe]]":
    """Register the decorated class for models of `bases`, or only for those of a variant."""

    def register(cls: "type[Recipe]") -> "type[Recipe]":
        if variant is None:
            _recipes.update(dict.fromkeys(bases, cls()))
        else:
            _variant_recipes.update(dict.fromkeys(((base, variant) for base in bases), cls()))
        return cls

    return register


@cache
def recipes() -> "Mapping[BaseModelType, Recipe]":
    """Return every recipe by base; families are discovered once."""
    for _ in discovery.modules("recipe"):
        pass  # importing registers
    return _recipes


def every_recipe() -> "Sequence[Recipe]":
    """Return the recipes of all bases and variants."""
    return [*recipes().values(), *_variant_recipes.values()]


def find_recipe(base: BaseModelType, variant: str | None) -> "Recipe | None":
    """Return the recipe of a model by the base and the variant of its record, None if its base has none."""
    of_base = recipes().get(base)
    return of_base if variant is None else _variant_recipes.get((base, variant), of_base)
