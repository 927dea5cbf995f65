"""Naming of layers in LoRA files for FLUX.1 and FLUX.2, whose transformers have diffusers' modules.

Layers with Black Forest Labs' names may be several of them. Names are flat: with underscores instead of dots.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from invokeclone.components.flux.single_files import BLOCKS, SWAPPED, OriginalNames
from invokeclone.engine.lora.stacks import Stack

_BLOCK = re.compile(r"(?P<kind>double|single)_blocks_(?P<number>\d+)_(?P<layer>.+)")
Layers = Mapping[str, tuple[str, ...]]


def _flat(name: str) -> str:
    return name.replace(".", "_")


_SWAPPED = _flat(SWAPPED)


def by_flat_name(layers: Layers, aliases: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the flat modules of each layer, also by its aliases, and of each part of a stack by its number."""
    named = {_flat(name): tuple(map(_flat, modules)) for name, modules in layers.items()}
    named |= {alias: named[name] for alias, name in aliases.items()}
    numbered = {
        f"{name}_{number}": (module,)
        for name, modules in named.items()
        if len(modules) > 1
        for number, module in enumerate(modules)
    }
    return named | numbered


@dataclass(frozen=True)
class FlatNames:
    """Diffusers' flat modules of layers with Black Forest Labs' flat names."""

    outer: Layers
    double: Layers
    single: Layers

    @classmethod
    def of(
        cls,
        names: OriginalNames,
        double_aliases: Mapping[str, str] | None = None,
        single_aliases: Mapping[str, str] | None = None,
    ) -> "FlatNames":
        """Return those of a family; aliases are other names of flat layers."""
        outer = {_flat(name): (_flat(module),) for name, module in names.outer.items()}
        double, single = (
            by_flat_name(layers, aliases or {})
            for layers, aliases in ((names.double, double_aliases), (names.single, single_aliases))
        )
        return cls(outer, double, single)

    def modules(self, layer: str) -> tuple[str, ...]:
        """Return the modules of a layer; empty for other names."""
        if match := _BLOCK.fullmatch(layer):
            layers = self.double if match["kind"] == "double" else self.single
            name = match["layer"].removesuffix(
                "_scale"
            )  # the weight of a norm, where files name the tensor and not the layer
            return tuple(f"{BLOCKS[match['kind']]}_{match['number']}_{module}" for module in layers.get(name, ()))
        return self.outer.get(layer, ())

    def diffusers_name(self, layer: str) -> str:
        """Return the name of a layer that is one module; other names are returned unchanged."""
        modules = self.modules(layer)
        return modules[0] if len(modules) == 1 and modules[0] != _SWAPPED else layer

    def stack_of(self, layer: str) -> Stack | None:
        """Return the modules of a layer that is not just one module of diffusers."""
        modules = self.modules(layer)
        swapped = modules[:1] == (_SWAPPED,)
        return Stack(modules, swapped=swapped) if len(modules) > 1 or swapped else None
