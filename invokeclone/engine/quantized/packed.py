"""Packed tensors, and linear layers that decode their packed weight at each call."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import nn
from torch.nn import functional

from invokeclone.graph.checkpoints import checkpoint

_VALUES_AT_ONCE = 2**19
"""Number of values that are decoded at a time on the CPU; the fastest of 2^16 to 2^20 (docs/performance.md)."""


@dataclass(frozen=True)
class PackedTensor(ABC):
    """A quantized matrix whose rows are packed separately, so that it can be cut into rows.

    `parts` are tensors with one row, or one group of consecutive values, per row of the matrix; `shared` ones belong to
    all rows.
    """

    parts: Mapping[str, torch.Tensor]
    """By name; the first dimension of each has one entry per row."""
    shape: torch.Size
    """Rows and columns of the matrix."""
    shared: Mapping[str, torch.Tensor] = field(default_factory=dict, kw_only=True)
    """By name, other names than those of `parts`; none is empty or without dimensions."""

    @abstractmethod
    def decode_whole(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the matrix in a number format, decoded at once."""

    def decode(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the matrix in a number format.

        On the CPU, some rows are decoded at a time, whose intermediate values fit into its caches.
        """
        rows = max(1, _VALUES_AT_ONCE // self.shape[1])
        if self.shape[0] <= rows or any(part.device.type != "cpu" for part in self.parts.values()):
            return self.decode_whole(dtype)
        result = torch.empty(self.shape, dtype=dtype)
        for begin in range(0, self.shape[0], rows):
            parts = {name: part[begin : begin + rows] for name, part in self.parts.items()}
            target = result[begin : begin + rows]
            target.copy_(self._with(parts, len(target)).decode_whole(dtype))
        return result

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
        """Return the matrix with the rows of this one and then of the following ones, which are parts of one matrix."""
        matrices = [self, *following]
        parts = {name: _join([matrix.parts[name] for matrix in matrices]) for name in self.parts}
        return self._with(parts, sum(matrix.shape[0] for matrix in matrices))

    def _with(self, parts: Mapping[str, torch.Tensor], rows: int) -> Self:
        return replace(self, parts=parts, shape=torch.Size([rows, *self.shape[1:]]))


def _join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the rows of all parts; torch cannot join 8-bit floats on every device."""
    return torch.cat([_as_bytes(part) for part in parts]).view(parts[0].dtype)


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor as int8, without a copy where possible."""
    tensor = tensor.contiguous()
    if tensor.stride(-1) != 1:  # of a single column, whose stride has no meaning
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    return tensor.view(torch.int8)


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
        self._packing = replace(packed, parts={}, shared={})
        self._shared = frozenset(packed.shared)
        tensors = {**packed.parts, **packed.shared}
        self._formats = {name: tensor.dtype for name, tensor in tensors.items()}
        for number, tensor in enumerate(tensors.values()):
            stored = nn.Parameter(_as_bytes(tensor), requires_grad=False)
            self.register_parameter(_name(number), stored)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))

    def dense_weight(self) -> torch.Tensor:
        """Return the decoded weight in float32, for LoRAs that depend on it."""
        return self.decode(torch.float32)

    def decode(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight in a number format, on the device of its bytes."""
        tensors = {
            name: getattr(self, _name(number)).data.view(part_format)
            for number, (name, part_format) in enumerate(self._formats.items())
        }
        shared = {name: tensors.pop(name) for name in self._shared}
        return replace(self._packing, parts=tensors, shared=shared).decode(dtype)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for inputs (…, columns)."""
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        return functional.linear(inputs, self.decode(inputs.dtype), bias)


def _name(number: int) -> str:
    return "weight" if number == 0 else f"weight_part_{number}"


def fill(
    model: nn.Module, weights: dict[str, torch.Tensor | PackedTensor], dtype: torch.dtype
) -> tuple[list[str], list[str]]:
    """Give a model on the meta device its weights; linear layers keep packed ones, other modules get decoded ones.

    Tensors of floating point are converted to `dtype`. `weights` is emptied, so that no tensor is in memory twice for
    longer than its conversion. Returns the names of missing and of unknown tensors. Raises RuntimeError for tensors of
    the wrong size.
    """
    packed: list[str] = []
    for name in [name for name, value in weights.items() if isinstance(value, PackedTensor)]:
        checkpoint()
        if (layer := _linear_of(model, name)) is not None:
            packed += _pack(model, *layer, weights, dtype)
    plain = {name: _plain(weights.pop(name), dtype) for name in list(weights)}
    result = model.load_state_dict(plain, strict=False, assign=True)
    return [name for name in result.missing_keys if name not in packed], list(result.unexpected_keys)


def _pack(
    model: nn.Module,
    path: str,
    module: nn.Linear,
    weights: dict[str, torch.Tensor | PackedTensor],
    dtype: torch.dtype,
) -> list[str]:
    """Replace a linear layer by one with its packed weight, and return the names of the new layer's tensors."""
    name = f"{path}.weight"
    value = weights.pop(name)
    if not isinstance(value, PackedTensor) or value.shape != module.weight.shape:
        raise RuntimeError(
            f"size mismatch for {name}: {list(value.shape)} in the file, {list(module.weight.shape)} in the model"
        )
    bias = weights.pop(f"{path}.bias", None)
    layer = PackedLinear(value, None if bias is None else _plain(bias, dtype))
    parent, _, last = path.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)
    names = [f"{path}.{part}" for part in layer.state_dict()]
    if bias is None and module.bias is not None:
        layer.bias = module.bias  # reported as missing
    return names


def _plain(value: torch.Tensor | PackedTensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor for a module that keeps no packed one."""
    checkpoint()
    if isinstance(value, PackedTensor):
        return value.decode(dtype)
    return value.to(dtype) if value.is_floating_point() else value


def _linear_of(model: nn.Module, name: str) -> tuple[str, nn.Linear] | None:
    """Return the path of the linear layer with the weight `name`, and the layer."""
    path, _, kind = name.rpartition(".")
    try:
        module = model.get_submodule(path) if kind == "weight" else None
    except AttributeError:
        return None
    return (path, module) if isinstance(module, nn.Linear) else None
