"""Preprocessing of images for CLIP's vision models, and their embeddings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from invokeclone.kit.files.image_modes import convert

SIDE = 224
"""Side of the model's input in pixels."""
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_WHITE = 255.0


def pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    """Return the center of each image, (number, 3, 224, 224), normalized as in CLIP's training.

    The shorter side is resized to 224 pixels (bicubic, rounded to 8 bits) and the center square is cropped.
    """
    middles = torch.cat([_middle(convert(image, "RGB")) for image in images]).float()
    mean, deviation = (torch.tensor(values).reshape(3, 1, 1) * _WHITE for values in (_MEAN, _DEVIATION))
    return (middles - mean) / deviation


def _middle(image: Image.Image) -> torch.Tensor:
    """Return the center square (1, 3, 224, 224), 0..255."""
    short, long = min(image.size), max(image.size)
    longer = SIDE * long // short
    size = (longer, SIDE) if image.width <= image.height else (SIDE, longer)
    levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous()
    resized = functional.interpolate(levels, size=size, mode="bicubic", antialias=True)
    top, left = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    return resized[..., top : top + SIDE, left : left + SIDE]


def image_embeds(encoder: Any, batch: torch.Tensor) -> torch.Tensor:
    """Return one embedding per image, (number, projection width), for the result of `pixels`."""
    embeds: torch.Tensor = encoder(batch.to(encoder.dtype)).image_embeds
    return embeds


def penultimate(encoder: Any, batch: torch.Tensor) -> torch.Tensor:
    """Return the output of the second-to-last layer, (number, patches + 1, width), for the result of `pixels`."""
    states: torch.Tensor = encoder(batch.to(encoder.dtype), output_hidden_states=True).hidden_states[-2]
    return states
