"""When controls and adapters of a run are active, and how strong they are."""

import math
from collections.abc import Sequence


def is_active(index: int, count: int, begin: float, end: float) -> bool:
    """Return whether a control from `begin` to `end`, fractions of a run, is active in call `index` of `count`."""
    return math.floor(begin * count) <= index <= math.ceil(end * count)


def weight_at(weight: float | Sequence[float], index: int) -> float:
    """Return a control's weight in call `index`; the last value of a short list applies to the remaining calls."""
    return weight[min(index, len(weight) - 1)] if isinstance(weight, Sequence) else weight
