"""Packed tensors, and linear layers that decode their packed weight at each call."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import nn
from torch.nn import functional

from invokeclone.graph.checkpoints import checkpoint


@dataclass(frozen=True)
class PackedTensor(ABC):
    """A quantized matrix whose rows are packed separately, so that it can be cut into rows.

    `parts` are tensors with one row, or one group of consecutive values, per row of the matrix.
    """

    parts: Mapping[str, torch.Tensor]
    """By name; the first dimension of each has one entry per row."""
    shape: torch.Size
    """Rows and columns of the matrix."""

    @abstractmethod
    def decode(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the matrix in a number format."""

    def split(self, rows: Sequence[int]) -> list[Self]:
        """Return the matrices of the given numbers of rows, from top to bottom."""
        cut = {name: part.split(list(rows)) for name, part in self.parts.items()}
        return [
            self._with({name: parts[number] for name, parts in cut.items()}, count) for number, count in enumerate(rows)
        ]

    def chunk(self, count: int) -> list[Self]:
        """Return `count` matrices of equally many rows."""
        return self.split([self.shape[0] // count] * count)

    def join(self, following: Sequence[Self]) -> Self:
        """Return the matrix with the rows of this one and then of the following ones."""
        matrices = [self, *following]
        parts = {name: torch.cat([matrix.parts[name] for matrix in matrices]) for name in self.parts}
        return self._with(parts, sum(matrix.shape[0] for matrix in matrices))

    def _with(self, parts: Mapping[str, torch.Tensor], rows: int) -> Self:
        return replace(self, parts=parts, shape=torch.Size([rows, *self.shape[1:]]))


Weights = Mapping[str, "torch.Tensor | PackedTensor"]


class PackedLinear(nn.Linear):  # type: ignore[misc]
    """A linear layer with a packed weight, which is decoded in the number format of the input at each call.

    The bytes are parameters, so that they move between devices as other weights do. All of them are int8, whatever they
    encode: the number format of a model is that of its first floating point parameter, and some modules of transformers
    cast their input to the number format of a weight unless it is int8. `weight` is the first of them.
    """

    def __init__(self, packed: PackedTensor, bias: torch.Tensor | None) -> None:
        """Take the packed weight (outputs, inputs) and the bias (outputs)."""
        nn.Module.__init__(self)
        self.out_features, self.in_features = packed.shape
        self._packing = replace(packed, parts={})
        self._formats = {name: tensor.dtype for name, tensor in packed.parts.items()}
        for number, tensor in enumerate(packed.parts.values()):
            stored = nn.Parameter(tensor.contiguous().view(torch.int8), requires_grad=False)
            self.register_parameter(_name(number), stored)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def dense_weight(self) -> torch.Tensor:
        """Return the decoded weight in float32, for LoRAs that depend on it."""
        return self.decode(torch.float32)

    def decode(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight in a number format, on the device of its bytes."""
        parts = {
            name: getattr(self, _name(number)).data.view(part_format)
            for number, (name, part_format) in enumerate(self._formats.items())
        }
        return replace(self._packing, parts=parts).decode(dtype)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for inputs (…, columns)."""
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        return functional.linear(inputs, self.decode(inputs.dtype), bias)


def _name(number: int) -> str:
    return "weight" if number == 0 else f"weight_part_{number}"


def fill(model: nn.Module, weights: Weights, dtype: torch.dtype) -> tuple[list[str], list[str]]:
    """Give a model on the meta device its weights; linear layers keep packed ones, other modules get decoded ones.

    Tensors of floating point are converted to `dtype`. Returns the names of missing and of unknown tensors. Raises
    RuntimeError for tensors of the wrong size.
    """
    plain: dict[str, torch.Tensor] = {}
    filled: set[str] = set()
    without_bias: list[str] = []
    for name, value in weights.items():
        checkpoint()
        if not isinstance(value, PackedTensor):
            plain[name] = value.to(dtype) if value.is_floating_point() else value
        elif (layer := _linear_of(model, name)) is None:
            plain[name] = value.decode(dtype)
        else:
            path, module = layer
            _check_size(name, value, module)
            bias = weights.get(f"{path}.bias")
            if bias is None and module.bias is not None:
                without_bias.append(f"{path}.bias")
            decoded = bias.decode(dtype) if isinstance(bias, PackedTensor) else bias
            _replace(model, path, PackedLinear(value, None if decoded is None else decoded.to(dtype)))
            filled |= {name, f"{path}.bias"}
    remaining = {name: value for name, value in plain.items() if name not in filled}
    result = model.load_state_dict(remaining, strict=False, assign=True)
    packed = {
        f"{path}.{name}" for path, m in model.named_modules() if isinstance(m, PackedLinear) for name in m.state_dict()
    }
    missing = [name for name in result.missing_keys if name not in packed]
    return [*without_bias, *missing], list(result.unexpected_keys)


def _linear_of(model: nn.Module, name: str) -> tuple[str, nn.Linear] | None:
    """Return the path of the linear layer with the weight `name`, and the layer."""
    path, _, kind = name.rpartition(".")
    try:
        module = model.get_submodule(path) if kind == "weight" else None
    except AttributeError:
        return None
    return (path, module) if isinstance(module, nn.Linear) else None


def _check_size(name: str, value: PackedTensor, module: nn.Linear) -> None:
    if value.shape != module.weight.shape:
        raise RuntimeError(
            f"size mismatch for {name}: {list(value.shape)} in the file, {list(module.weight.shape)} in the model"
        )


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
