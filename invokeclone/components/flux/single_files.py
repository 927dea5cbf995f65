"""The layout of single files of FLUX.1 and FLUX.2: Black Forest Labs' tensor names, and diffusers' names."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from invokeclone.engine.quantized.packed import PackedTensor, Weights, fill
from invokeclone.kit import log

logger = log.get("components.flux")

PREFIXES = ("model.diffusion_model.", "diffusion_model.")
"""Prefixes of the transformer's tensors in files of other programs; the first that occurs counts."""
_BLOCK = re.compile(r"(?P<kind>double|single)_blocks\.(?P<number>\d+)\.(?P<layer>.+)")
_FIRST_LAYER = "double_blocks.0.img_attn.qkv.weight"
"""A tensor that marks files with Black Forest Labs' names."""
BLOCKS = {"double": "transformer_blocks", "single": "single_transformer_blocks"}
"""Diffusers' names of the lists of blocks."""
SWAPPED = "norm_out.linear"
"""The module whose halves of rows, scale and shift, are in the other order in Black Forest Labs' layer."""


@dataclass(frozen=True)
class OriginalNames:
    """Diffusers' modules of the layers in a family's single files."""

    outer: Mapping[str, str]
    """Layers outside of the blocks."""
    double: Mapping[str, tuple[str, ...]]
    """Layers of a double block, each with its modules by rows; after the first three, one module has the rest."""
    single: Mapping[str, tuple[str, ...]]
    """Layers of a single block, in the same way."""

    def module_names(self, layer: str) -> tuple[str, ...]:
        """Return diffusers' modules that a layer consists of, by rows; empty for an unknown layer."""
        if match := _BLOCK.fullmatch(layer):
            names = self.double if match["kind"] == "double" else self.single
            blocks = BLOCKS[match["kind"]]
            return tuple(f"{blocks}.{match['number']}.{name}" for name in names.get(match["layer"], ()))
        return (self.outer[layer],) if layer in self.outer else ()

    def to_diffusers(self, weights: Weights) -> dict[str, torch.Tensor | PackedTensor]:
        """Return a transformer's tensors with diffusers' names; unknown names stay. Tensors are views, not copies."""
        if _FIRST_LAYER not in weights:
            return dict(weights)
        weights = {**weights, "img_in.weight": _input_layer(weights)}
        hidden = weights["img_in.weight"].shape[0]
        renamed: dict[str, torch.Tensor | PackedTensor] = {}
        for name, tensor in weights.items():
            renamed.update(self._rename(name, tensor, hidden))
        return renamed

    def _rename(
        self, name: str, tensor: torch.Tensor | PackedTensor, hidden: int
    ) -> Iterator[tuple[str, torch.Tensor | PackedTensor]]:
        layer, _, kind = name.rpartition(".")
        modules = self.module_names(layer)
        kind = "weight" if kind == "scale" else kind
        match len(modules):
            case 0:
                yield name, tensor
            case 1:
                yield f"{modules[0]}.{kind}", _swap_halves(tensor) if modules[0] == SWAPPED else tensor
            case count:
                rows = [hidden] * 3 + [tensor.shape[0] - 3 * hidden] * (count - 3)
                yield from ((f"{m}.{kind}", part) for m, part in zip(modules, tensor.split(rows), strict=True))


def _input_layer(weights: Weights) -> torch.Tensor | PackedTensor:
    """Return the weight of the layer of the image, which some GGUF files have in another shape, as (outputs, inputs)."""
    weight, bias = weights["img_in.weight"], weights.get("img_in.bias")
    if bias is None or isinstance(weight, PackedTensor) or weight.shape[0] == bias.shape[0]:
        return weight
    return weight.reshape(bias.shape[0], -1)


def _swap_halves(tensor: torch.Tensor | PackedTensor) -> torch.Tensor | PackedTensor:
    """Return scale and shift in diffusers' order."""
    first, second = tensor.chunk(2)
    return second.join([first]) if isinstance(second, PackedTensor) else torch.cat([second, first])


def prefix_of(names: Iterable[str]) -> str:
    """Return the prefix of the transformer's tensors in a file; empty if they have none."""
    names = list(names)
    return next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in names)), "")


def without_prefix(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the transformer's tensors of a file without their prefix; of a bundle, only those."""
    prefix = prefix_of(names)
    return {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}


def count_blocks(weights: Mapping[str, Any], blocks: str) -> int:
    """Return the number of blocks in the list `blocks` (diffusers' names)."""
    pattern = re.compile(rf"{blocks}\.(\d+)\.")
    return len({match[1] for name in weights if (match := pattern.match(name))})


def build_transformer(
    model_class: Any,
    names: OriginalNames,
    config_of: Callable[[Weights], dict[str, Any]],
    tensors: dict[str, torch.Tensor | PackedTensor],
    dtype: torch.dtype,
    name: str,
) -> Any:
    """Return the transformer with these tensors, named as by Black Forest Labs or diffusers; quantized ones stay so.

    `config_of` returns the configuration by the tensors' sizes, or raises KeyError. `name` is that of the file. `tensors` is
    emptied. Raises ValueError for missing tensors.
    """
    try:
        weights = names.to_diffusers(tensors)
        tensors.clear()
        with torch.device("meta"):
            model = model_class(**config_of(weights))
        missing, unknown = fill(model, weights, dtype)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{name} holds an incomplete transformer, download it again: {reason}") from error
    if missing:
        raise ValueError(f"{name} holds an incomplete transformer ({missing[0]} is missing): download it again")
    if unknown:
        logger.warning("%s: %s unknown tensors are ignored, such as %s", name, len(unknown), unknown[0])
    return model.eval()
