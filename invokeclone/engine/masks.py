"""Denoise masks from grayscale images, with soft edges.

Black (0) changes and white (1) stays, in images and in tensors.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from invokeclone.kit.files.image_modes import convert

CoherenceMode = Literal["Gaussian Blur", "Box Blur", "Staged"]
_GRID = 8
"""Pixels per latent."""
_WHITE = 255.0
_RADIUS_IN_DEVIATIONS = 2.5


def gradient(image: Image.Image, radius: int, mode: CoherenceMode, minimum_denoise: float) -> torch.Tensor:
    """Return a mask (1, 1, height, width) whose changing area is widened by a gradient of `radius` pixels.

    The further out a pixel is, the later it starts to change. Sides are cropped to multiples of 8.
    `minimum_denoise` (0..1) is the minimum share of the noise for the outermost part. In mode Staged the whole
    border starts to change at that share.
    """
    size = (max(1, image.width // _GRID), max(1, image.height // _GRID))
    gray = np.asarray(convert(image, "L").resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    reach = radius // _GRID
    result = gray if reach == 0 else _widen(gray, reach, mode, (1.0 - minimum_denoise) * _WHITE)
    levels = np.clip(result, 0, _WHITE).astype(np.uint8)
    enlarged = levels.repeat(_GRID, axis=0).repeat(_GRID, axis=1)
    return torch.from_numpy(enlarged.astype(np.float32) / _WHITE)[None, None]


def _widen(gray: npt.NDArray[np.float32], reach: int, mode: CoherenceMode, threshold: float) -> npt.NDArray[np.float32]:
    """Return the mask with a border of `reach` latents; values between `threshold` and white become `threshold`."""
    dilated = _WHITE - _dilate(_WHITE - gray, reach, mode)
    if mode == "Staged":
        dilated = np.where((dilated < gray) & (gray > threshold), threshold, gray)
    return np.where((dilated > threshold) & (dilated < _WHITE), threshold, dilated)


def _dilate(values: npt.NDArray[np.float32], reach: int, mode: CoherenceMode) -> npt.NDArray[np.float32]:
    """Return for each latent the largest product of a value within `reach` and the weight of its distance."""
    height, width = values.shape
    result = values.copy()
    rows, columns = min(reach, height - 1), min(reach, width - 1)
    for down in range(-rows, rows + 1):
        for right in range(-columns, columns + 1):
            weight = _weight((down * down + right * right) ** 0.5, reach, mode)
            if weight <= 0.0:
                continue
            target = result[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
            source = values[max(0, down) : height - max(0, -down), max(0, right) : width - max(0, -right)]
            np.maximum(target, source * np.float32(weight), out=target)
    return result


def _weight(distance: float, reach: int, mode: CoherenceMode) -> float:
    if distance > reach:
        return 0.0
    if mode == "Box Blur":
        return 1.0 - distance / reach
    deviation = reach / _RADIUS_IN_DEVIATIONS
    return float(np.exp(-(distance**2) / (2.0 * deviation**2)))


def area_of_change(mask: torch.Tensor) -> Image.Image:
    """Return a grayscale image: black where the mask permits any change, white elsewhere."""
    stays = (mask.reshape(mask.shape[-2:]) >= 1.0).to(torch.uint8) * 255
    return Image.fromarray(stays.numpy())


def change_mask(keep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Return a mask (batch or 1, 1, height, width) with the latents' size, device and dtype, 1 where they change.

    `keep` (…, any height, any width) is 1 where they stay.
    """
    mask = keep.reshape(-1, 1, *keep.shape[-2:]).to(latents)
    if mask.shape[-2:] != latents.shape[-2:]:
        mask = functional.interpolate(mask, size=latents.shape[-2:], mode="bilinear", align_corners=False)
    return 1.0 - mask
