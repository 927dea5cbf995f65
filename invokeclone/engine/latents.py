"""What can be done to latents without a model: noise, another size, a blend. Shapes are (batch, channels, height, width)."""

from typing import Literal

import torch
from torch.nn import functional

InterpolationMode = Literal["nearest", "linear", "bilinear", "bicubic", "trilinear", "area", "nearest-exact"]
_ANTIALIASED = ("bilinear", "bicubic")
_FLAT_MODES = ("nearest", "bilinear", "bicubic", "area", "nearest-exact")
_PARALLEL = 0.9995
"""Cosine from which on two directions are taken for one."""


def noise(seed: int, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return standard normal noise, drawn on `device` in `dtype`."""
    generator = torch.Generator(device).manual_seed(seed % 2**32)
    return torch.randn(shape, generator=generator, device=device, dtype=dtype)


def resize(
    latents: torch.Tensor, height: int, width: int, mode: InterpolationMode, *, antialias: bool = False
) -> torch.Tensor:
    """Return latents of `height` by `width` latents. Raises ValueError for a mode that is not for two dimensions."""
    _check(mode)
    return functional.interpolate(
        latents, size=(height, width), mode=mode, antialias=antialias and mode in _ANTIALIASED
    )


def scale(latents: torch.Tensor, factor: float, mode: InterpolationMode, *, antialias: bool = False) -> torch.Tensor:
    """Return latents scaled by `factor`: sides are rounded down, values are read at exact multiples of 1 / factor.

    Raises ValueError for a mode that is not for two dimensions, and where nothing would be left.
    """
    _check(mode)
    if min(int(side * factor) for side in latents.shape[-2:]) < 1:
        raise ValueError(
            f"scale_factor {factor:g} leaves nothing of latents of {latents.shape[-1]} x {latents.shape[-2]}"
        )
    return functional.interpolate(latents, scale_factor=factor, mode=mode, antialias=antialias and mode in _ANTIALIASED)


def _check(mode: str) -> None:
    if mode not in _FLAT_MODES:
        raise ValueError(f"{mode} interpolation is not for images; use one of {', '.join(_FLAT_MODES)}")


def blend(first: torch.Tensor, second: torch.Tensor, share: float, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return a spherical blend with `share` of the second; where `mask` (…, height, width) is 1 the first one stays.

    Raises ValueError for latents of different shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"latents to blend must have the same shape, not {list(first.shape)} and {list(second.shape)}")
    a, b = first.float(), second.float()
    if mask is not None:
        flat = mask.reshape(1, 1, *mask.shape[-2:]).float()
        keep = functional.interpolate(flat, size=a.shape[-2:], mode="bilinear", align_corners=False)
        b = b + keep * (a - b)
    cosine = float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12))
    if abs(cosine) > _PARALLEL:
        return torch.lerp(a, b, share).to(first.dtype)
    angle = torch.acos(torch.tensor(cosine))
    mixed = (torch.sin((1.0 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
    return mixed.to(first.dtype)
