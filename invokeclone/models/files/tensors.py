"""What a weight file declares of a tensor: its number type and shape."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tensor:
    """One tensor: the name of its number type and its shape."""

    dtype: str
    shape: tuple[int, ...]
