"""Preparation of control images: resizing to the latents of a run."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from invokeclone.components.control.fields import CONTROLNET_RESIZE_VALUES
from invokeclone.components.control.resize import Bytes, heuristic_resize
from invokeclone.kit.files.image_modes import convert

_WHITE = 255.0


def prepare(image: Image.Image, size: tuple[int, int], mode: CONTROLNET_RESIZE_VALUES) -> NDArray[np.float32]:
    """Return a control image (height, width, 3) in 0..1, resized to `size` (width, height).

    `just_resize` changes the proportions, `crop_resize` crops, `fill_resize` adds a border in the color of the
    image's edge. `just_resize_simple` is `just_resize` with plain Lanczos instead of the heuristics for lines and
    flat colors.
    """
    if mode == "just_resize_simple":
        pixels = np.asarray(convert(image, "RGB").resize(size, Image.Resampling.LANCZOS))
    elif mode == "crop_resize":
        pixels = _crop(_on_white(image), size)
    elif mode == "fill_resize":
        pixels = _fill(_on_white(image), size)
    else:
        pixels = heuristic_resize(_on_white(image), size)
    return pixels.astype(np.float32) / np.float32(_WHITE)


def _on_white(image: Image.Image) -> Bytes:
    """Return an image (height, width, 3) with its transparent parts over white."""
    if not image.has_transparency_data:
        return np.asarray(convert(image, "RGB"))
    pixels = np.asarray(convert(image, "RGBA"), dtype=np.float32)
    alpha = pixels[..., 3:] / np.float32(_WHITE)
    mixed = pixels[..., :3] * alpha + np.float32(_WHITE) * (1 - alpha)
    return np.asarray(np.clip(mixed, 0, _WHITE), dtype=np.uint8)


def _scale(pixels: Bytes, factor: float) -> Bytes:
    height, width = (max(1, round(side * factor)) for side in pixels.shape[:2])
    return heuristic_resize(pixels, (width, height))


def _crop(pixels: Bytes, size: tuple[int, int]) -> Bytes:
    """Return the center of the image, scaled to cover the size."""
    width, height = size
    scaled = _scale(pixels, max(height / pixels.shape[0], width / pixels.shape[1]))
    top, left = (max(0, (side - target) // 2) for side, target in zip(scaled.shape[:2], (height, width), strict=True))
    return scaled[top : top + height, left : left + width]


def _fill(pixels: Bytes, size: tuple[int, int]) -> Bytes:
    """Return the whole image, centered on a background in the median color of its border."""
    width, height = size
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.tile(np.median(border, axis=0).astype(np.uint8), (height, width, 1))
    scaled = _scale(pixels, min(height / pixels.shape[0], width / pixels.shape[1]))
    top, left = (max(0, (target - side) // 2) for side, target in zip(scaled.shape[:2], (height, width), strict=True))
    background[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return background
