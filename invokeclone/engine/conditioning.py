"""What families' conditionings have in common: named tensors that move together, and what a ConditioningField names."""

from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

import torch


@dataclass
class ConditioningTensors:
    """A set of named tensors; families add theirs as fields."""

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None = None) -> Self:
        """Return the same with its tensors on `device`, those of floats in `dtype`; nothing is copied if all is so already."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        moved = {
            name: value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            for name, value in tensors.items()
        }
        return replace(self, **moved)

    def concat(self, other: Self) -> Self:
        """Return one conditioning with these rows and then those of `other`; the tensors must agree in all but the rows."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **{name: torch.cat([value, getattr(other, name)]) for name, value in tensors.items()})


Info = TypeVar("Info", bound=ConditioningTensors)


@dataclass
class ConditioningFieldData(Generic[Info]):
    """What a ConditioningField names: one conditioning, in a list that leaves room for more."""

    conditionings: list[Any]
