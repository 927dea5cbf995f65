"""Holes in pictures filled from what is around them: with tiles of the rest, or with colors that flow in from the edge."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

OPAQUE = 255


def tiles_of(pixels: Bytes, size: int) -> Bytes:
    """Return the wholly opaque squares (count, size, size, 4) of the picture's grid of squares."""
    height, width = (side // size * size for side in pixels.shape[:2])
    squares = pixels[:height, :width].reshape(height // size, size, width // size, size, 4).swapaxes(1, 2)
    squares = squares.reshape(-1, size, size, 4)
    return squares.compress((squares[..., 3] == OPAQUE).all(axis=(1, 2)), axis=0)


def tile_fill(pixels: Bytes, size: int, seed: int) -> Bytes | None:
    """Return a ground (height, width, 4) of squares drawn by chance from the opaque ones of an RGBA picture.

    Where no square of `size` pixels is wholly opaque smaller ones are taken; None when not one pixel is.
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
    """Return colors (height, width, 3) with those that are not known, 0 of 0 to 1, mixed from the nearest known ones.

    The picture is halved until it is one pixel, each pixel the mean of what is known in it; on the way back what is unknown
    is taken from the coarser picture. What nothing is known about is black.
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
    """Join each four pixels into one; as soon as a fourth of it is known, it counts as wholly known."""
    height, width = weight.shape
    odd = ((0, height % 2), (0, width % 2))
    total = _sums(np.pad(weight, odd)[..., None])[..., 0]
    colors = _sums(np.pad(weighted, (*odd, (0, 0))))
    scale = np.reciprocal(np.maximum(total, np.float32(1)))
    return colors * scale[..., None], total * scale


def _sums(layers: Floats) -> Floats:
    """Add up each four pixels."""
    return layers[::2, ::2] + layers[1::2, ::2] + layers[::2, 1::2] + layers[1::2, 1::2]


def _upsample(layers: Floats, shape: tuple[int, ...]) -> Floats:
    """Double the sides, with colors mixed in between, and cut to the shape."""
    height, width = layers.shape[:2]
    if (height, width) == shape:
        return layers
    size = (2 * width, 2 * height)
    bands = [Image.fromarray(layers[..., band]).resize(size, Image.Resampling.BILINEAR) for band in range(3)]
    grown = np.stack([np.asarray(band) for band in bands], axis=-1)
    return grown[: shape[0], : shape[1]]
