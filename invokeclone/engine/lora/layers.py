"""The kinds of layer change in LoRA files, and what each adds to the layer's weight and bias.

Formulas are those of LyCORIS (arXiv 2309.14859), DoRA (arXiv 2402.09353), IA3 (arXiv 2205.05638) and OFT (arXiv
2306.07280). Tensors are those of the file; `scale` is alpha / rank, 1 if the file states neither.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import torch

Tensors = Mapping[str, torch.Tensor]


class UnknownLayer(ValueError):
    """The tensors of a layer match no known kind."""


class LayerChange(ABC):
    """A change to one layer: a frozen dataclass of tensors."""

    @abstractmethod
    def weight_delta(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Return what is added to the unchanged weight at strength 1, in its shape; None for no change."""

    def bias_delta(self) -> torch.Tensor | None:
        """Return what is added to the bias at strength 1; None for no change."""
        return None

    @abstractmethod
    def fits(self, shape: torch.Size) -> bool:
        """Return whether the change applies to a weight of this shape."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Return the change with its tensors on a device and in a number format."""
        values = {member.name: getattr(self, member.name) for member in dataclasses.fields(self)}  # type: ignore[arg-type]
        moved = {name: _move(value, device, dtype) for name, value in values.items()}
        return dataclasses.replace(self, **moved)  # type: ignore[type-var]


def _move(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, dtype if value.is_floating_point() else value.dtype)
    if isinstance(value, tuple):
        return tuple(_move(item, device, dtype) for item in value)
    return value.to(device, dtype) if isinstance(value, LayerChange) else value


@dataclass(frozen=True)
class LoRA(LayerChange):
    """up · down, with `mid` between them for convolutions (LoCon)."""

    up: torch.Tensor
    down: torch.Tensor
    mid: torch.Tensor | None
    scale: float
    bias: torch.Tensor | None = None

    def weight_delta(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the product."""
        return self.product().reshape(weight.shape) * self.scale

    @property
    def is_two_matrices(self) -> bool:
        """Whether it is just up · down, so that a layer's input can pass through both matrices in turn."""
        return self.mid is None and bool(self.up.shape[1] == self.down.shape[0])

    def fits(self, shape: torch.Size) -> bool:
        """Return whether the product has the weight's outputs and inputs, and its ranks match."""
        size = self.up.shape[0] * prod(self.down.shape[1:]) * (1 if self.mid is None else prod(self.mid.shape[2:]))
        return bool(self.up.shape[0] == shape[0] and size == shape.numel() and self._ranks_fit)

    @property
    def _ranks_fit(self) -> bool:
        if self.mid is not None:
            return bool(self.mid.shape[:2] == (self.up.shape[1], self.down.shape[0]))
        small, large = sorted((self.up.shape[1], self.down.shape[0]))
        return bool(small > 0 and large % small == 0)

    def bias_delta(self) -> torch.Tensor | None:
        """Return the bias, None if there is none."""
        return None if self.bias is None else self.bias * self.scale

    def product(self) -> torch.Tensor:
        """Return up · down without the scale."""
        if self.mid is not None:
            up, down = self.up.flatten(1), self.down.flatten(1)
            return torch.einsum("mnwh,im,nj->ijwh", self.mid, up, down)
        up, down = self.up.flatten(1), self.down.flatten(1)
        if up.shape[1] == down.shape[0]:
            return up @ down
        return _product_of_unequal_ranks(up, down)


def _product_of_unequal_ranks(up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Return the sum of the products of the smaller matrix with each matching piece of the larger one."""
    small = min(up.shape[1], down.shape[0])
    if up.shape[1] > down.shape[0]:
        pieces = [part @ down for part in up.split(small, dim=1)]
    else:
        pieces = [up @ part for part in down.split(small, dim=0)]
    return torch.stack(pieces).sum(dim=0)


@dataclass(frozen=True)
class LoHa(LayerChange):
    """The elementwise product of two low-rank matrices."""

    first: tuple[torch.Tensor, torch.Tensor]
    second: tuple[torch.Tensor, torch.Tensor]
    cores: tuple[torch.Tensor, torch.Tensor] | None
    scale: float

    def weight_delta(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the product."""
        if self.cores is None:
            delta = (self.first[0] @ self.first[1]) * (self.second[0] @ self.second[1])
        else:
            sides = zip(self.cores, (self.first, self.second), strict=True)
            first_product, second_product = (torch.einsum("ijkl,jr,ip->prkl", core, b, a) for core, (a, b) in sides)
            delta = first_product * second_product
        return delta.reshape(weight.shape) * self.scale

    def fits(self, shape: torch.Size) -> bool:
        """Return whether both matrices have the weight's size."""
        if self.cores is None:
            return all(
                a.shape[0] * b.shape[1] == shape.numel() and a.shape[1] == b.shape[0]
                for a, b in (self.first, self.second)
            )
        sides = zip(self.cores, (self.first, self.second), strict=True)
        return all(a.shape[1] * b.shape[1] * prod(core.shape[2:]) == shape.numel() for core, (a, b) in sides)


@dataclass(frozen=True)
class LoKr(LayerChange):
    """The Kronecker product of two matrices."""

    first: torch.Tensor
    second: torch.Tensor
    scale: float

    def weight_delta(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the product."""
        first = self.first
        if self.second.ndim == 4:  # noqa: PLR2004 - a convolution's
            first = first.reshape(*first.shape, 1, 1)
        return torch.kron(first.contiguous(), self.second.contiguous()).reshape(weight.shape) * self.scale

    def fits(self, shape: torch.Size) -> bool:
        """Return whether the product has the weight's size."""
        return bool(self.first.numel() * self.second.numel() == shape.numel())


@dataclass(frozen=True)
class DoRA(LayerChange):
    """Another change, followed by rescaling each row or column to a learned magnitude."""

    direction: LayerChange
    magnitude: torch.Tensor
    by_input: bool
    """Whether the magnitude is one per input (LyCORIS) or one per output (PEFT)."""

    def weight_delta(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the new weight minus the old one."""
        delta = self.direction.weight_delta(weight)
        changed = weight if delta is None else weight + delta
        axis = self._axis
        norm_axes = [dimension for dimension in range(changed.ndim) if dimension != axis]
        norm = torch.linalg.vector_norm(changed, dim=norm_axes, keepdim=True)
        norm = torch.where(norm == 0, 1, norm)  # an empty row stays empty
        shape = [1] * changed.ndim
        shape[axis] = -1
        return changed * (self.magnitude.reshape(shape) / norm) - weight

    def bias_delta(self) -> torch.Tensor | None:
        """Return the bias change of the inner change."""
        return self.direction.bias_delta()

    def fits(self, shape: torch.Size) -> bool:
        """Return whether the inner change applies and there is a magnitude for each row or column."""
        return self.direction.fits(shape) and self.magnitude.numel() == shape[self._axis]

    @property
    def _axis(self) -> int:
        return 1 if self.by_input else 0


@dataclass(frozen=True)
class Full(LayerChange):
    """Stored differences of weight and bias."""

    weight: torch.Tensor | None
    bias: torch.Tensor | None

    def weight_delta(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Return the difference."""
        return None if self.weight is None else self.weight.reshape(weight.shape)

    def bias_delta(self) -> torch.Tensor | None:
        """Return the difference of the bias."""
        return self.bias

    def fits(self, shape: torch.Size) -> bool:
        """Return whether the difference has the weight's size."""
        return self.weight is None or self.weight.numel() == shape.numel()


@dataclass(frozen=True)
class Replacement(LayerChange):
    """A new weight, used whatever the strength."""

    weight: torch.Tensor

    def weight_delta(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the new weight minus the old one."""
        return self.weight.reshape(weight.shape) - weight

    def fits(self, shape: torch.Size) -> bool:
        """Return whether it has the weight's size."""
        return bool(self.weight.numel() == shape.numel())


@dataclass(frozen=True)
class IA3(LayerChange):
    """A factor for each input or output."""

    factor: torch.Tensor
    on_input: bool

    def weight_delta(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the product of the weight and the factors."""
        shape = [1] * weight.ndim
        shape[self._axis] = -1
        return weight * self.factor.reshape(shape)

    def fits(self, shape: torch.Size) -> bool:
        """Return whether there is a factor for each input or output."""
        return len(shape) > self._axis and self.factor.numel() == shape[self._axis]

    @property
    def _axis(self) -> int:
        return 1 if self.on_input else 0


@dataclass(frozen=True)
class OFT(LayerChange):
    """Rotations of blocks of outputs by the Cayley transform of skew-symmetric matrices."""

    blocks: torch.Tensor
    """Shape (blocks, size, size)."""
    constraint: float
    """Largest norm of the blocks; 0 for no limit."""

    def weight_delta(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the rotated weight minus the old one."""
        count, size, _ = self.blocks.shape
        skew = self.blocks - self.blocks.transpose(1, 2)
        norm = torch.linalg.vector_norm(skew)
        if self.constraint > 0 and norm > self.constraint:
            skew = skew * (self.constraint / norm)
        identity = torch.eye(size, dtype=skew.dtype, device=skew.device)
        rotation = (identity + skew) @ torch.linalg.inv(identity - skew)
        rotated = torch.einsum("knm,kn...->km...", rotation.to(weight), weight.reshape(count, size, *weight.shape[1:]))
        return rotated.reshape(weight.shape) - weight

    def fits(self, shape: torch.Size) -> bool:
        """Return whether the blocks cover the outputs."""
        return bool(self.blocks.shape[0] * self.blocks.shape[1] == shape[0])


def read_layer(tensors: Tensors) -> LayerChange:
    """Return the change described by a layer's tensors, by their names in the file. Raises UnknownLayer."""
    for magnitude in ("dora_scale", "dora_magnitude"):
        if magnitude in tensors:
            direction = read_layer({name: tensor for name, tensor in tensors.items() if name != magnitude})
            by_input = magnitude == "dora_scale" and _is_by_input(tensors["dora_scale"].shape)
            return DoRA(direction, tensors[magnitude], by_input)
    for name, read in _READERS:
        if name in tensors:
            return read(tensors)
    raise UnknownLayer(f"tensors named {', '.join(sorted(tensors))} match no known kind of LoRA layer")


def _is_by_input(shape: torch.Size) -> bool:
    """Return whether the values of a LyCORIS `dora_scale` are per input, as (1, inputs), rather than per output."""
    return not (len(shape) > 1 and shape[0] != 1 and all(side == 1 for side in shape[1:]))


def _scale(tensors: Tensors, rank: int | None) -> float:
    alpha = tensors.get("alpha")
    return 1.0 if alpha is None or not rank else float(alpha) / rank


def _read_lora(tensors: Tensors) -> LoRA:
    up, down = tensors["lora_up.weight"], tensors["lora_down.weight"]
    if up.ndim < 2 or down.ndim < 2:  # noqa: PLR2004 - matrices
        raise UnknownLayer(f"lora_up and lora_down must be matrices, not {list(up.shape)} and {list(down.shape)}")
    bias = tensors["lora_up.bias"] if "lora_up.bias" in tensors else _sparse_bias(tensors)
    return LoRA(up, down, tensors.get("lora_mid.weight"), _scale(tensors, down.shape[0]), bias)


def _sparse_bias(tensors: Tensors) -> torch.Tensor | None:
    """Return a bias of which only some values are stored. Raises RuntimeError for indices out of range."""
    if "bias_indices" not in tensors:
        return None
    size = [int(side) for side in tensors["bias_size"].flatten().tolist()]
    indices, values = tensors["bias_indices"].long(), tensors["bias_values"]
    return torch.sparse_coo_tensor(indices, values, size, check_invariants=True).to_dense()


def _read_loha(tensors: Tensors) -> LoHa:
    cores = (tensors["hada_t1"], tensors["hada_t2"]) if "hada_t1" in tensors else None
    return LoHa(
        (tensors["hada_w1_a"], tensors["hada_w1_b"]),
        (tensors["hada_w2_a"], tensors["hada_w2_b"]),
        cores,
        _scale(tensors, tensors["hada_w1_b"].shape[0]),
    )


def _read_lokr(tensors: Tensors) -> LoKr:
    rank = None
    for name in ("lokr_w2_b", "lokr_w1_b"):
        rank = tensors[name].shape[0] if name in tensors else rank
    first = tensors["lokr_w1"] if "lokr_w1" in tensors else tensors["lokr_w1_a"] @ tensors["lokr_w1_b"]
    if "lokr_w2" in tensors:
        second = tensors["lokr_w2"]
    elif "lokr_t2" in tensors:
        second = torch.einsum("ijkl,ip,jr->prkl", tensors["lokr_t2"], tensors["lokr_w2_a"], tensors["lokr_w2_b"])
    else:
        second = tensors["lokr_w2_a"] @ tensors["lokr_w2_b"]
    return LoKr(first, second, _scale(tensors, rank))


def _read_full(tensors: Tensors) -> Full:
    return Full(tensors.get("diff"), tensors.get("diff_b"))


def _read_norm(tensors: Tensors) -> Full:
    return Full(tensors["w_norm"], tensors.get("b_norm"))


def _read_ia3(tensors: Tensors) -> IA3:
    return IA3(tensors["weight"].flatten(), bool(tensors["on_input"]))


def _read_oft(tensors: Tensors) -> OFT:
    blocks = tensors["oft_blocks"]
    alpha = tensors.get("alpha")
    return OFT(blocks, 0.0 if alpha is None else float(alpha) * blocks.shape[0] * blocks.shape[1])


_READERS = (
    ("lora_up.weight", _read_lora),
    ("hada_w1_a", _read_loha),
    ("lokr_w1", _read_lokr),
    ("lokr_w1_a", _read_lokr),
    ("diff", _read_full),
    ("diff_b", _read_full),
    ("set_weight", lambda tensors: Replacement(tensors["set_weight"])),
    ("on_input", _read_ia3),
    ("w_norm", _read_norm),
    ("oft_blocks", _read_oft),
)
"""The first of these tensor names that a layer has determines its kind."""
