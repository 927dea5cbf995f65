"""Pictures for control networks brought to a size without losing what they are: lines stay lines, flat colors stay flat."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from invokeclone.nodes.images.pixels import edges

Bytes = NDArray[np.uint8]

FEW_COLORS = 200
"""Up to so many a picture counts as a map of flat colors."""
DARK, LIGHT = 16, 240
"""A picture of two grays counts as black and white when they are below and above these."""
THIN = 0.05
"""Share of the white that may remain of lines without squares of 2 by 2 pixels."""

JOINED = 96
"""Gray from which a pixel of an enlarged line belongs to it: less than half, so that steps at corners stay joined."""


def colors_of(picture: Image.Image) -> int:
    """Return how many colors a picture has, at most one more than count as few."""
    found = picture.getcolors(FEW_COLORS)
    return FEW_COLORS + 1 if found is None else len(found)


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an RGB picture in a size: lines one pixel wide, black and white with sharp edges, flat colors unmixed, others mixed."""
    if size == picture.size:
        return picture
    grows = size[0] * size[1] > picture.width * picture.height
    smooth = Image.Resampling.BICUBIC if grows else Image.Resampling.BOX
    if (count := colors_of(picture)) > FEW_COLORS:
        return picture.resize(size, smooth)
    gray = np.asarray(picture.convert("L"))
    if count > 2 or gray.min() >= DARK or gray.max() <= LIGHT:  # noqa: PLR2004 - black and white
        return picture.resize(size, Image.Resampling.NEAREST)
    white = gray > LIGHT
    if is_thin(white):
        return _gray(edges.thinned(_spread(white, size)))
    return _gray(np.asarray(_gray(white).resize(size, smooth).convert("L")) > 127)  # noqa: PLR2004 - half


def is_thin(white: NDArray[np.bool_]) -> bool:
    """Return whether there is white, and next to none of it in squares of 2 by 2 pixels."""
    total = int(white.sum())
    squares = white[:-1, :-1] & white[1:, :-1] & white[:-1, 1:] & white[1:, 1:]
    return total > 0 and int(squares.sum()) <= total * THIN


def _spread(white: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return lines in a size, none of them lost: what any pixel of the new picture covers counts."""
    height, width = white.shape
    reach = tuple(max(1, -(-old // new)) for old, new in ((height, size[1]), (width, size[0])))
    wide = ndimage.maximum_filter(white, size=reach, mode="constant")
    lines = Image.fromarray(wide.astype(np.uint8) * np.uint8(255))
    small = lines.resize((min(size[0], width), min(size[1], height)), Image.Resampling.NEAREST)
    return np.asarray(small.resize(size, Image.Resampling.BILINEAR)) >= JOINED


def _gray(white: NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(white.astype(np.uint8) * np.uint8(255)).convert("RGB")
