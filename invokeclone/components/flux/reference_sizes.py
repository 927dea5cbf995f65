"""Sizes of the images that FLUX.1 Kontext was trained with, in pixels."""

_PORTRAIT = ((672, 1568), (688, 1504), (720, 1456), (752, 1392), (800, 1328), (832, 1248), (880, 1184), (944, 1104))
PREFERRED_SIZES = (*_PORTRAIT, (1024, 1024), *((height, width) for width, height in reversed(_PORTRAIT)))
"""Width and height."""


def closest_size(width: int, height: int) -> tuple[int, int]:
    """Return the preferred size with the closest aspect ratio."""
    return min(PREFERRED_SIZES, key=lambda sides: abs(width / height - sides[0] / sides[1]))
