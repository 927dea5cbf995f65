"""Dynamic position extrapolation (DyPE, arXiv 2510.20766) for images larger than FLUX.1 was trained for."""

import math
from dataclasses import dataclass
from typing import Literal

Preset = Literal["off", "manual", "auto", "area", "4k"]
_TRAINED_SIDE = 1024
_AUTO_SIDE = 1536
"""Longer side up to which the preset `auto` changes nothing."""
_MAX_SCALE = 8.0
_WIDE = 2.0
"""Aspect ratio above which the preset `area` scales less."""


@dataclass(frozen=True)
class DynamicPositions:
    """Enlarges the base of rotary embeddings, most at pure noise."""

    ratio: float
    """The longer side of the image as a multiple of the trained one; above 1."""
    scale: float
    exponent: float

    def stretch(self, level: float) -> float:
        """Return the logarithm of the enlargement at a noise level, for `rotary_table`."""
        fade: float = min(max(level, 0.0), 1.0) ** self.exponent
        return math.log(self.ratio) * self.scale * fade


def dynamic_positions(
    preset: Preset, width: int, height: int, scale: float | None = None, exponent: float | None = None
) -> DynamicPositions | None:
    """Return the scaling of a preset for an image in pixels, None if positions stay as trained.

    `scale` and `exponent` replace the values of the preset `manual`.
    """
    ratio = max(width, height) / _TRAINED_SIDE
    settings = _settings(preset, width, height, scale, exponent)
    return None if ratio <= 1.0 or settings is None else DynamicPositions(ratio, *settings)


def _settings(
    preset: Preset, width: int, height: int, scale: float | None, exponent: float | None
) -> tuple[float, float] | None:
    ratio = max(width, height) / _TRAINED_SIDE
    match preset:
        case "manual":
            default_scale = min(2.0 * ratio, _MAX_SCALE)
            return default_scale if scale is None else scale, 2.0 if exponent is None else exponent
        case "auto":
            return (min(2.0 * ratio, _MAX_SCALE), 2.0) if max(width, height) > _AUTO_SIDE else None
        case "area":
            return _by_area(width, height)
        case "4k":
            return 2.0, 2.0
        case _:
            return None


def _by_area(width: int, height: int) -> tuple[float, float] | None:
    if width * height <= _TRAINED_SIDE**2:
        return None
    ratio, aspect = math.sqrt(width * height) / _TRAINED_SIDE, max(width, height) / min(width, height)
    scale = 2.4 * ratio * (1.0 if aspect <= _WIDE else _WIDE / aspect)
    return min(max(scale, 0.0), _MAX_SCALE), 1.25 + 0.75 * min(max(ratio - 1.0, 0.0), 1.0)
