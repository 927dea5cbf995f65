"""Filling of holes in images: with tiles from the rest, or with colors that flow in from the edge."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

OPAQUE = 255


def tiles_of(pixels: Bytes, size: int) -> Bytes:
    """Return the fully opaque tiles (count, size, size, 4) of the image's grid."""
    height, width = (side // size * size for side in pixels.shape[:2])
    squares = pixels[:height, :width].reshape(height // size, size, width // size, size, 4).swapaxes(1, 2)
    squares = squares.reshape(-1, size, size, 4)
    return squares.compress((squares[..., 3] == OPAQUE).all(axis=(1, 2)), axis=0)


def tile_fill(pixels: Bytes, size: int, seed: int) -> Bytes | None:
    """Return a background (height, width, 4) of random opaque tiles of an RGBA image.

    If no tile of `size` pixels is fully opaque, smaller ones are used. Returns None when no pixel is opaque.
    """
    height, width = pixels.shape[:2]
    size = min(size, height, width)
    squares = tiles_of(pixels, size)
    while not len(squares) and size > 1:
        size //= 2
        squares = tiles_of(pixels, size)
    if not len(squares):
        return None
    down, across = -(-height // size), -(-width // size)
    grid_squares = squares[np.random.default_rng(seed).integers(len(squares), size=(down, across))]
    return grid_squares.swapaxes(1, 2).reshape(down * size, across * size, 4)[:height, :width]


def fill_smoothly(colors: Bytes, coverage: Floats) -> Bytes:
    """Return colors (height, width, 3) with the unknown ones interpolated from the nearest known ones.

    `coverage` is 0 for unknown and 1 for known colors. The image is halved down to one pixel, averaging known
    colors; on the way back, unknown colors are taken from the coarser level. If nothing is known, the result is
    black.
    """
    levels = [(colors.astype(np.float32) * coverage[..., None], coverage)]
    while max(levels[-1][1].shape) > 1:
        levels.append(_downsample(*levels[-1]))
    ground = np.zeros((1, 1, 3), dtype=np.float32)
    for weighted, weight in reversed(levels):
        share = np.clip(weight, 0.0, 1.0)[..., None]
        ground = weighted + _upsample(ground, weight.shape) * (1.0 - share)
    return np.clip(np.round(ground), 0, OPAQUE).astype(np.uint8)


def _downsample(weighted: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """Merge each four pixels into one; it counts as fully known if a fourth of it is known."""
    height, width = weight.shape
    odd = ((0, height % 2), (0, width % 2))
    total = _sums(np.pad(weight, odd)[..., None])[..., 0]
    colors = _sums(np.pad(weighted, (*odd, (0, 0))))
    scale = np.reciprocal(np.maximum(total, np.float32(1)))
    return colors * scale[..., None], total * scale


def _sums(layers: Floats) -> Floats:
    """Sum each four pixels."""
    return layers[::2, ::2] + layers[1::2, ::2] + layers[::2, 1::2] + layers[1::2, 1::2]


def _upsample(layers: Floats, shape: tuple[int, ...]) -> Floats:
    """Double the sides with interpolation and crop to `shape`."""
    height, width = layers.shape[:2]
    if (height, width) == shape:
        return layers
    size = (2 * width, 2 * height)
    bands = [Image.fromarray(layers[..., band]).resize(size, Image.Resampling.BILINEAR) for band in range(3)]
    grown = np.stack([np.asarray(band) for band in bands], axis=-1)
    return grown[: shape[0], : shape[1]]
