"""Warping of images by smooth random fields."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Bytes = NDArray[np.uint8]


def waves(shape: tuple[int, int], scale: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return smooth noise (height, width) from 0 to 1, with a random value about every `scale` pixels."""
    height, width = shape
    points = rng.random((height // scale + 3, width // scale + 3)).astype(np.float32)
    steps = min(scale, max(shape))
    smooth = Image.fromarray(points).resize(
        (points.shape[1] * steps, points.shape[0] * steps), Image.Resampling.BICUBIC
    )
    cut = np.asarray(smooth)[steps : steps + height, steps : steps + width]
    span = float(cut.max() - cut.min())
    shares: NDArray[Any] = (cut - cut.min()) / (span or 1.0)
    return shares


def shuffle(pixels: Bytes, scale: int, rng: np.random.Generator) -> Bytes:
    """Return an image (height, width, channels) with pixel locations given by two smooth random fields."""
    height, width = pixels.shape[:2]
    down, across = waves((height, width), scale, rng), waves((height, width), scale, rng)
    coordinates = np.stack([down * (height - 1), across * (width - 1)])
    layers = [ndimage.map_coordinates(pixels[..., i], coordinates, order=1) for i in range(pixels.shape[2])]
    return np.stack(layers, axis=-1)
