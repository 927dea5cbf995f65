"""Operations on latents without a model: noise, resizing, blending. Shapes are (batch, channels, height, width)."""

from typing import Literal

import torch
from torch.nn import functional

InterpolationMode = Literal["nearest", "linear", "bilinear", "bicubic", "trilinear", "area", "nearest-exact"]
_ANTIALIASED = ("bilinear", "bicubic")
_FLAT_MODES = ("nearest", "bilinear", "bicubic", "area", "nearest-exact")
_PARALLEL = 0.9995
"""Cosine above which two directions are treated as equal."""


def noise(seed: int, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return standard normal noise, drawn on `device` in `dtype`."""
    generator = torch.Generator(device).manual_seed(seed % 2**32)
    return torch.randn(shape, generator=generator, device=device, dtype=dtype)


def resize(
    latents: torch.Tensor, height: int, width: int, mode: InterpolationMode, *, antialias: bool = False
) -> torch.Tensor:
    """Return latents resized to `height` by `width` latents.

    Raises ValueError for a mode that is not two-dimensional.
    """
    _check(mode)
    return functional.interpolate(
        latents, size=(height, width), mode=mode, antialias=antialias and mode in _ANTIALIASED
    )


def scale(latents: torch.Tensor, factor: float, mode: InterpolationMode, *, antialias: bool = False) -> torch.Tensor:
    """Return latents scaled by `factor`, with sides rounded down.

    Values are sampled at exact multiples of 1 / factor. Raises ValueError for a mode that is not two-dimensional,
    and when a side would become 0.
    """
    _check(mode)
    if min(int(side * factor) for side in latents.shape[-2:]) < 1:
        raise ValueError(
            f"scale_factor {factor:g} is too small for latents of {latents.shape[-1]} x {latents.shape[-2]}"
        )
    return functional.interpolate(latents, scale_factor=factor, mode=mode, antialias=antialias and mode in _ANTIALIASED)


def _check(mode: str) -> None:
    if mode not in _FLAT_MODES:
        raise ValueError(f"{mode} interpolation does not work on images; use one of {', '.join(_FLAT_MODES)}")


def blend(first: torch.Tensor, second: torch.Tensor, share: float, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return a spherical blend with a share of `second`; where `mask` (…, height, width) is 1, `first` is kept.

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


def check_finite(latents: torch.Tensor) -> torch.Tensor:
    """Return the latents. Raises ValueError for NaN or infinite values, which would give a black image."""
    if not bool(torch.isfinite(latents).all()):
        raise ValueError(
            "denoising produced NaN or infinite values: the model, or one of its LoRAs, is damaged (install it "
            "again) or overflows in half precision (set precision to bfloat16 or float32)"
        )
    return latents
