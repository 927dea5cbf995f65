"""Operations on masks as byte arrays: black changes, white stays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bytes = NDArray[np.uint8]

EROSIONS = 3
"""Number of erosions by half the blur's width before blurring, so that the changing area stays black."""


def fade_edges(mask: Bytes, threshold: int, size: int) -> Bytes:
    """Return the mask (height, width) with a border of `size` pixels that rises from black to white in a cubic curve.

    Values up to `threshold` count as black. A size of 0 changes nothing.
    """
    if size == 0:
        return mask
    stays = mask > threshold
    if stays.all():
        return np.full_like(mask, 255)
    share = np.clip(ndimage.distance_transform_edt(stays) / size, 0.0, 1.0)
    rising: NDArray[Any] = share * share * (3.0 - 2.0 * share)
    return np.round(rising * 255.0).astype(np.uint8)


def erode(mask: Bytes, size: int) -> Bytes:
    """Return the mask with its white eroded three times by a square of `size` pixels."""
    reach = min(EROSIONS * (size // 2), max(mask.shape))
    return mask if reach == 0 else ndimage.minimum_filter(mask, size=2 * reach + 1, mode="nearest")


def dilate(mask: Bytes, times: int) -> Bytes:
    """Return the mask with its white dilated `times` times by a square of 3 pixels."""
    reach = min(times, max(mask.shape))
    return mask if reach <= 0 else ndimage.maximum_filter(mask, size=2 * reach + 1, mode="nearest")


def between(mask: Bytes) -> Bytes:
    """Return white where the mask is neither black nor white, black elsewhere."""
    return np.where((mask > 0) & (mask < 255), 255, 0).astype(np.uint8)  # noqa: PLR2004 - white


def bounds(matches: NDArray[np.bool_], margin: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom (exclusive) of the true pixels, widened by `margin` within the image.

    Returns zeros when nothing is true or a negative margin leaves nothing.
    """
    rows, columns = np.flatnonzero(matches.any(axis=1)), np.flatnonzero(matches.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    height, width = matches.shape
    left, right = max(0, int(columns[0]) - margin), min(width, int(columns[-1]) + 1 + margin)
    top, bottom = max(0, int(rows[0]) - margin), min(height, int(rows[-1]) + 1 + margin)
    return (left, top, right, bottom) if left < right and top < bottom else (0, 0, 0, 0)
