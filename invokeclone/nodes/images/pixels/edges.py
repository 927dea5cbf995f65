"""Edges in images: Canny's detector."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bytes = NDArray[np.uint8]

TANGENT_22 = 0.4142135623730951
"""Of 22.5°, up to which a slope counts as level."""
TANGENT_67 = 2.414213562373095
"""Of 67.5°, from which a slope counts as upright."""
NEIGHBORHOOD = np.ones((3, 3), dtype=bool)


def canny(pixels: Bytes, low: float, high: float) -> Bytes:
    """Return 255 on the edges of a gray (height, width) or colored (height, width, channels) picture, 0 elsewhere.

    A slope is the sum of both Sobel derivatives' sizes, in a colored picture of the channel with the steepest slope. It is an
    edge where it is the greatest across its own direction and above `high`, or above `low` and joined to one above `high`.
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
    """Return the derivatives to the right and downwards, and the sum of their sizes."""
    layers = pixels.astype(np.int32).reshape(*pixels.shape[:2], -1)
    across = np.stack([ndimage.sobel(layers[..., i], axis=1, mode="nearest") for i in range(layers.shape[2])], axis=-1)
    down = np.stack([ndimage.sobel(layers[..., i], axis=0, mode="nearest") for i in range(layers.shape[2])], axis=-1)
    slope = np.abs(across) + np.abs(down)
    steepest = slope.argmax(axis=-1)[..., None]
    steepest_values = (np.take_along_axis(layer, steepest, axis=-1)[..., 0] for layer in (across, down, slope))
    return next(steepest_values), next(steepest_values), next(steepest_values)


def _neighbors(slope: NDArray[Any], across: NDArray[Any], down: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the slopes of the two neighbors in the direction of each pixel's slope; outside of the picture it is 0.

    Diagonal neighbors must both be less; the one ahead is lowered so that `>=` says so.
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
