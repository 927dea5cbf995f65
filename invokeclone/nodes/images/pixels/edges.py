"""Canny edge detection."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bytes = NDArray[np.uint8]

TANGENT_22 = 0.4142135623730951
"""Tangent of 22.5°, up to which a gradient counts as horizontal."""
TANGENT_67 = 2.414213562373095
"""Tangent of 67.5°, from which a gradient counts as vertical."""
NEIGHBORHOOD = np.ones((3, 3), dtype=bool)


def canny(pixels: Bytes, low: float, high: float) -> Bytes:
    """Return 255 on the edges of a gray (height, width) or color (height, width, channels) image, 0 elsewhere.

    The gradient is the sum of the absolute Sobel derivatives, in color images that of the channel with the greatest
    one. A pixel is an edge if its gradient is a maximum along its direction and above `high`, or above `low` and
    connected to one above `high`.
    """
    low, high = sorted((low, high))
    across, down, slope = _slopes(pixels)
    ahead, behind = _neighbors(slope, across, down)
    candidates = (slope > low) & (slope > behind) & (slope >= ahead)
    parts, count = ndimage.label(candidates, structure=NEIGHBORHOOD)
    strong = np.zeros(count + 1, dtype=bool)
    strong[np.unique(parts[candidates & (slope > high)])] = True
    strong[0] = False
    return np.where(strong[parts], 255, 0).astype(np.uint8)


def _slopes(pixels: Bytes) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the horizontal and vertical derivatives, and the sum of their absolute values."""
    layers = pixels.astype(np.int32).reshape(*pixels.shape[:2], -1)
    across = np.stack([ndimage.sobel(layers[..., i], axis=1, mode="nearest") for i in range(layers.shape[2])], axis=-1)
    down = np.stack([ndimage.sobel(layers[..., i], axis=0, mode="nearest") for i in range(layers.shape[2])], axis=-1)
    slope = np.abs(across) + np.abs(down)
    steepest = slope.argmax(axis=-1)[..., None]
    steepest_values = (np.take_along_axis(layer, steepest, axis=-1)[..., 0] for layer in (across, down, slope))
    return next(steepest_values), next(steepest_values), next(steepest_values)


def _neighbors(slope: NDArray[Any], across: NDArray[Any], down: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the gradients of the two neighbors along each pixel's gradient direction; 0 outside the image.

    Both diagonal neighbors must be strictly less; the one ahead is adjusted so that `>=` tests that.
    """
    wide = np.pad(slope, 1)
    height, width = slope.shape

    def neighbor_at(x: int, y: int) -> NDArray[Any]:
        return wide[1 + y : 1 + y + height, 1 + x : 1 + x + width]

    flat, steep = np.abs(down) < TANGENT_22 * np.abs(across), np.abs(down) > TANGENT_67 * np.abs(across)
    falling = (across < 0) == (down < 0)
    behind = np.select(
        [flat, steep, falling], [neighbor_at(-1, 0), neighbor_at(0, -1), neighbor_at(-1, -1)], neighbor_at(1, -1)
    )
    ahead = np.select(
        [flat, steep, falling], [neighbor_at(1, 0), neighbor_at(0, 1), neighbor_at(1, 1) + 1], neighbor_at(-1, 1) + 1
    )
    return ahead, behind
