"""Masks of what a denoise run may change: made of gray pictures, softened towards the edge.

Black is what changes, white is what stays, in pictures and in tensors (0 and 1). Denoising itself it refuses to know.
"""

from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageFilter

from invokeclone.engine.autoencoder import mask_of, to_grid

CoherenceMode = Literal["Gaussian Blur", "Box Blur", "Staged"]
_HALF = 0.5
_GAUSSIAN_REACH = 0.45
"""Share of a blurred edge, above the half, that lies within two standard deviations."""


def gradient(image: Image.Image, radius: int, mode: CoherenceMode, minimum_denoise: float) -> torch.Tensor:
    """Return a mask (1, 1, height, width) that changes from 0 at the edge of the black area to 1 at `radius` pixels outside.

    In between a place starts to change the later the nearer to 1; `minimum_denoise` makes it start earlier, at that share of the
    strength at the latest. Staged: the whole border starts half way.
    """
    hard = (mask_of(image) >= _HALF).float()
    if radius <= 0:
        return hard
    gray = to_grid(image.convert("L")).point([0 if value < 128 else 255 for value in range(256)])  # noqa: PLR2004 - half
    blurred = gray.filter(
        ImageFilter.GaussianBlur(radius / 2) if mode == "Gaussian Blur" else ImageFilter.BoxBlur(radius)
    )
    above_half = torch.from_numpy(np.asarray(blurred, dtype=np.float32) / 255.0)[None, None] - _HALF
    soft = (above_half / (_GAUSSIAN_REACH if mode == "Gaussian Blur" else _HALF)).clamp(0.0, 1.0)
    if mode == "Staged":
        soft = torch.where(soft < 1.0, _HALF, 1.0)
    soft = torch.where(soft < 1.0, soft * (1.0 - minimum_denoise), 1.0)
    return torch.minimum(hard, soft)


def picture_of_change(mask: torch.Tensor) -> Image.Image:
    """Return a gray picture of the area that a mask touches at all: black, and white around it."""
    stays = (mask.reshape(mask.shape[-2:]) >= 1.0).to(torch.uint8) * 255
    return Image.fromarray(stays.numpy())
