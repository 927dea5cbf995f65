"""Base classes of the families' conditionings, and the stored data that a ConditioningField refers to."""

from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

import torch


@dataclass
class ConditioningTensors:
    """A set of named tensors. Families add theirs as dataclass fields."""

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None = None) -> Self:
        """Return it with its tensors on `device`, floating point ones in `dtype`. Copies only what differs."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        moved = {
            name: value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            for name, value in tensors.items()
        }
        return replace(self, **moved)

    def concat(self, other: Self) -> Self:
        """Return one conditioning with these rows followed by those of `other`; all other dimensions must match."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **{name: torch.cat([value, getattr(other, name)]) for name, value in tensors.items()})


Info = TypeVar("Info", bound=ConditioningTensors)


@dataclass
class ConditioningFieldData(Generic[Info]):
    """The stored object of a ConditioningField: a list with one conditioning."""

    conditionings: list[Any]

    def single(self, kind: type[Info], name: str) -> Info:
        """Return the conditioning, which the input `name` of a node reads.

        Raises ValueError if it is not of the family's class `kind`.
        """
        info = self.conditionings[0]
        if isinstance(info, kind):
            return info
        raise ValueError(
            f"{name} was made for another model ({type(info).__name__}, not {kind.__name__}): encode the prompt with the prompt "
            "node of the transformer's family"
        )
