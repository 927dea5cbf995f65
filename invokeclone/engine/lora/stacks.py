"""Layers of files that are several modules of the model, stacked by rows.

Published networks often compute several projections in one layer, whose weight is those of the projections one below
the other. A model that keeps them apart gets from a change of such a layer one change per module, which is exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import TypeAlias

import torch

from invokeclone.engine.lora.layers import IA3, DoRA, Full, LayerChange, LoHa, LoKr, LoRA, Replacement

Rows: TypeAlias = slice | torch.Tensor
"""Which rows of a stack a module has: a range, or an index in any order."""


@dataclass(frozen=True)
class Stack:
    """The modules that a layer of a file consists of, by flat name and in the order of the rows."""

    modules: tuple[str, ...]
    swapped: bool = False
    """Whether the model has the two halves of the rows in the other order."""


@dataclass(frozen=True)
class Member:
    """A module of a stack in a model: its weight, of shape (rows, …), and the number of values of its bias."""

    shape: torch.Size
    weight: Callable[[], torch.Tensor]
    bias: int


@dataclass(frozen=True)
class StackedChange:
    """A change of a layer that is a stack of modules."""

    change: LayerChange
    stack: Stack

    def split(self, members: Sequence[Member]) -> list[LayerChange] | None:
        """Return the change of each module; None if the change does not fit them."""
        sizes = [member.shape[0] for member in members]
        total, columns = sum(sizes), members[0].shape[1:]
        if any(member.shape[1:] != columns for member in members):
            return None
        if not self.change.fits(torch.Size((total, *columns))) or not self._fits_biases(members, total):
            return None
        indices = self._indices(sizes)
        changes: list[LayerChange] = []
        for number, index in enumerate(indices):
            part = rows(self.change, index, total)
            if part is None:
                counterparts = [
                    (member.weight, rest)
                    for position, (member, rest) in enumerate(zip(members, indices, strict=True))
                    if position != number
                ]
                part = CutOfStack(self.change, index, total, tuple(counterparts))
            changes.append(part)
        return changes

    def _fits_biases(self, members: Sequence[Member], total: int) -> bool:
        delta = self.change.bias_delta()
        if delta is None:
            return True
        return delta.numel() == total and all(member.bias == member.shape[0] for member in members)

    def _indices(self, sizes: Sequence[int]) -> list[Rows]:
        ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
        ranges = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        if not self.stack.swapped:
            return list(ranges)
        order = torch.arange(ends[-1]).roll(-(ends[-1] // 2))
        return [order[part] for part in ranges]


@singledispatch
def rows(change: LayerChange, index: Rows, total: int) -> LayerChange | None:  # noqa: ARG001 - for registered kinds
    """Return a change of some of the `total` rows of a weight; None if it depends on the other rows of the weight."""
    return None


@rows.register
def _rows_of_lora(change: LoRA, index: Rows, total: int) -> LayerChange | None:
    if change.mid is not None or change.up.shape[0] != total:
        return None
    return replace(change, up=change.up[index], bias=_values(change.bias, index))


@rows.register
def _rows_of_loha(change: LoHa, index: Rows, total: int) -> LayerChange | None:
    (first, first_down), (second, second_down) = change.first, change.second
    if change.cores is not None or first.shape[0] != total or second.shape[0] != total:
        return None
    return replace(change, first=(first[index], first_down), second=(second[index], second_down))


@rows.register
def _rows_of_lokr(change: LoKr, index: Rows, total: int) -> LayerChange | None:
    inner = change.second.shape[0]
    if change.first.shape[0] * inner != total:
        return None
    if not isinstance(index, slice):
        return Cut(change, index, total)
    begin, end = index.start // inner, -(-index.stop // inner)
    part = replace(change, first=change.first[begin:end])
    return Cut(part, slice(index.start - begin * inner, index.stop - begin * inner), (end - begin) * inner)


@rows.register
def _rows_of_full(change: Full, index: Rows, total: int) -> LayerChange | None:
    if change.weight is not None and change.weight.shape[0] != total:
        return None
    return Full(None if change.weight is None else change.weight[index], _values(change.bias, index))


@rows.register
def _rows_of_replacement(change: Replacement, index: Rows, total: int) -> LayerChange | None:
    return Replacement(change.weight[index]) if change.weight.shape[0] == total else None


@rows.register
def _rows_of_ia3(change: IA3, index: Rows, total: int) -> LayerChange | None:  # noqa: ARG001 - as the other kinds
    return change if change.on_input else replace(change, factor=change.factor[index])


@rows.register
def _rows_of_dora(change: DoRA, index: Rows, total: int) -> LayerChange | None:
    direction = None if change.by_input else rows(change.direction, index, total)
    if direction is None:
        return None
    return DoRA(direction, change.magnitude.flatten()[index], by_input=False)


def _values(bias: torch.Tensor | None, index: Rows) -> torch.Tensor | None:
    return None if bias is None else bias.flatten()[index]


@dataclass(frozen=True)
class Cut(LayerChange):
    """Some rows of a change that does not depend on the weight's values."""

    change: LayerChange
    index: Rows
    total: int

    def weight_delta(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Return the rows of the whole change."""
        delta = self.change.weight_delta(weight.new_zeros(1).expand(self.total, *weight.shape[1:]))
        return None if delta is None else delta[self.index]

    def bias_delta(self) -> torch.Tensor | None:
        """Return the values of the whole change."""
        return _values(self.change.bias_delta(), self.index)

    def fits(self, shape: torch.Size) -> bool:
        """Return whether the whole change applies to a weight of as many columns."""
        return self.change.fits(torch.Size((self.total, *shape[1:])))


@dataclass(frozen=True)
class CutOfStack(LayerChange):
    """Some rows of a change that depends on all rows of the weight. `counterparts` are the weights of the other modules."""

    change: LayerChange
    index: Rows
    total: int
    counterparts: tuple[tuple[Callable[[], torch.Tensor], Rows], ...]

    def weight_delta(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Return the rows of the change of the whole weight."""
        whole = weight.new_empty(self.total, *weight.shape[1:])
        for counterpart, index in self.counterparts:
            whole[index] = counterpart().to(weight)
        whole[self.index] = weight
        delta = self.change.weight_delta(whole)
        return None if delta is None else delta[self.index]

    def bias_delta(self) -> torch.Tensor | None:
        """Return the values of the whole change."""
        return _values(self.change.bias_delta(), self.index)

    def fits(self, shape: torch.Size) -> bool:
        """Return whether the whole change applies to a weight of as many columns."""
        return self.change.fits(torch.Size((self.total, *shape[1:])))
