"""What can be done to latents without a model: noise, another size, a cut, a blend. Shapes are (batch, channels, height, width)."""

from typing import Literal

import torch
from torch.nn import functional

InterpolationMode = Literal["nearest", "linear", "bilinear", "bicubic", "trilinear", "area", "nearest-exact"]
_ANTIALIASED = ("bilinear", "bicubic")
_FLAT_MODES = ("nearest", "bilinear", "bicubic", "area", "nearest-exact")
_PARALLEL = 0.9995
"""Cosine from which on two directions are taken for one."""


def noise(seed: int, width: int, height: int, device: torch.device, channels: int = 4) -> torch.Tensor:
    """Return noise (1, channels, height / 8, width / 8) in float32, drawn on `device`; sides in pixels."""
    generator = torch.Generator(device).manual_seed(seed)
    shape = (1, channels, height // 8, width // 8)
    return torch.randn(shape, generator=generator, device=device, dtype=torch.float32)


def resize(
    latents: torch.Tensor, height: int, width: int, mode: InterpolationMode, *, antialias: bool = False
) -> torch.Tensor:
    """Return latents of `height` by `width` latents. Raises ValueError for a mode that is not for two dimensions."""
    if mode not in _FLAT_MODES:
        raise ValueError(f"{mode} interpolation is not for pictures; use one of {', '.join(_FLAT_MODES)}")
    return functional.interpolate(
        latents, size=(height, width), mode=mode, antialias=antialias and mode in _ANTIALIASED
    )


def blend(first: torch.Tensor, second: torch.Tensor, share: float, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return a spherical blend: `share` of the second, 0 to 1; `mask` (…, height, width) scales the share per place.

    Raises ValueError for latents of different shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"latents to blend must have the same shape, not {list(first.shape)} and {list(second.shape)}")
    weight: torch.Tensor | float = share
    if mask is not None:
        mask = functional.interpolate(
            mask.reshape(1, 1, *mask.shape[-2:]).float(), size=first.shape[-2:], mode="bilinear"
        )
        weight = share * mask
    weight = torch.as_tensor(weight, dtype=torch.float32)
    a, b = first.float(), second.float()
    cosine = float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12))
    if abs(cosine) > _PARALLEL:
        return torch.lerp(a, b, weight.expand_as(a)).to(first.dtype)
    angle = torch.acos(torch.tensor(cosine))
    mixed = (torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b) / torch.sin(angle)
    return mixed.to(first.dtype)
