"""Which modules of a model the layers of LoRAs change."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from invokeclone.engine.lora.layers import LayerChange
from invokeclone.engine.lora.stacks import Member, StackedChange
from invokeclone.kit import log

logger = log.get("engine.lora")

Layers = Mapping[str, LayerChange | StackedChange]
"""Changes by the flat names of layers."""
Change = tuple[LayerChange, float]
"""A change and its strength."""


@dataclass(frozen=True)
class LoRAPatch:
    """A LoRA's layers for one model, by flat name, and its strength."""

    name: str
    layers: Layers
    weight: float


def assign(model: nn.Module, loras: Sequence[LoRAPatch], optional_prefix: str) -> dict[nn.Module, list[Change]]:
    """Return the changes of each module, in the order of the LoRAs.

    `optional_prefix` is a prefix of layer names that the model may lack. Layers that the model does not have are
    logged. Raises ValueError for a LoRA that matches no layer at all.
    """
    modules = _modules_by_flat_name(model, optional_prefix)
    assigned: dict[nn.Module, list[Change]] = {}
    for lora in loras:
        unmatched = []
        for name, change in lora.layers.items():
            matches = list(_matches(name, change, modules))
            if not matches:
                unmatched.append(name)
            for module, part in matches:
                assigned.setdefault(module, []).append((part, lora.weight))
        if len(unmatched) == len(lora.layers):
            raise ValueError(
                f"the LoRA {lora.name} matches no layer of this model: it was made for another base"
                f" (its first layer is {unmatched[0]})"
            )
        if unmatched:
            logger.warning(
                "LoRA %s: %s unknown layers are skipped, such as %s", lora.name, len(unmatched), unmatched[0]
            )
    return assigned


def _modules_by_flat_name(model: nn.Module, optional_prefix: str) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        if isinstance(getattr(module, "weight", None), torch.Tensor):
            flat = path.replace(".", "_")
            modules.setdefault(flat, module)
            if optional_prefix:
                modules.setdefault(optional_prefix + flat, module)
    return modules


def _matches(
    name: str, change: LayerChange | StackedChange, modules: Mapping[str, nn.Module]
) -> Iterator[tuple[nn.Module, LayerChange]]:
    """Yield the modules that a layer of a file changes, with their changes; none if it does not fit them."""
    if not isinstance(change, StackedChange):
        module = modules.get(name)
        if module is not None and _fits(change, module):
            yield module, change
        return
    stacked = [modules[module] for module in change.stack.modules if module in modules]
    if len(stacked) == len(change.stack.modules):
        changes = change.split([_member(module) for module in stacked])
        yield from zip(stacked, changes or (), strict=False)


def _fits(change: LayerChange, module: Any) -> bool:
    delta, bias = change.bias_delta(), getattr(module, "bias", None)
    return change.fits(shape_of(module)) and (delta is None or (bias is not None and delta.numel() == bias.numel()))


def _member(module: Any) -> Member:
    bias = getattr(module, "bias", None)
    return Member(shape_of(module), _original_weight(module), 0 if bias is None else bias.numel())


def _original_weight(module: Any) -> Callable[[], torch.Tensor]:
    """Return a function for the weight as it is now, also after the module has been given a new one."""
    if has_dense_weight(module):
        return lambda: dense_weight(module)
    weight: torch.Tensor = module.weight.data
    return lambda: weight


def shape_of(module: Any) -> torch.Size:
    """Return the shape of a module's weight, which may be stored packed."""
    if isinstance(module, nn.Linear):
        return torch.Size((module.out_features, module.in_features))
    shape: torch.Size = module.weight.shape
    return shape


def has_dense_weight(module: Any) -> bool:
    """Return whether a module stores its weight packed, and returns the unpacked one from its `dense_weight()`."""
    return callable(getattr(module, "dense_weight", None))


def dense_weight(module: Any) -> torch.Tensor:
    """Return a module's weight in its shape, unpacked if it is stored in another."""
    weight: torch.Tensor = module.dense_weight() if has_dense_weight(module) else module.weight.data
    return weight
