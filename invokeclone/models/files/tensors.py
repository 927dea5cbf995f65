"""Tensor declarations in weight files."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tensor:
    """Data type and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]
