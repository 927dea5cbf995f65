"""Preview images of latents during denoising: a linear map from latent channels to colors, without a decoder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

import torch
from PIL import Image
from torch.nn import functional

from invokeclone.graph.vocabulary.architectures import LatentSpace, Matrix


@dataclass(frozen=True)
class LatentColors:
    """Linear map from latents to red, green and blue in -1..1: `weights` (features, 3) and `bias` (3).

    The features are the channels; with more weights than channels, also the pairwise products of channels.
    """

    weights: torch.Tensor
    bias: torch.Tensor

    def fits(self, channels: int) -> bool:
        """Return whether the map is for latents with this many channels."""
        return len(self.weights) in (channels, channels + channels * (channels + 1) // 2)

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the colors (…, 3) of latents (…, channels)."""
        channels = latents.shape[-1]
        features = latents if len(self.weights) == channels else torch.cat([latents, _products(latents)], dim=-1)
        return features @ self.weights.to(latents.device) + self.bias.to(latents.device)


def _products(latents: torch.Tensor) -> torch.Tensor:
    """Return the pairwise products of the channels, including squares."""
    rows, columns = torch.triu_indices(latents.shape[-1], latents.shape[-1])
    return latents[..., rows] * latents[..., columns]


_current: ContextVar[LatentColors | None] = ContextVar("latent_colors", default=None)


@contextmanager
def using(colors: LatentColors | None) -> Iterator[None]:
    """Use `colors` for previews on this thread, for a model with an unusual autoencoder.

    None selects the latent space's map.
    """
    token = _current.set(colors)
    try:
        yield
    finally:
        _current.reset(token)


def preview(latents: torch.Tensor, space: LatentSpace | None) -> Image.Image:
    """Return an image with one pixel per latent.

    The shape is (channels, height, width), or (batch, channels, height, width), of which the first is shown.
    Latents with frames, (…, channels, frames, height, width), show their first frame.
    """
    with torch.inference_mode():
        latent = _first(latents, space).float()
        colors = _current.get()
        if colors is None or not colors.fits(len(latent)):
            colors = _of_space(space) if space is not None and space.channels == len(latent) else None
        rgb = _gray(latent) if colors is None else colors(latent.permute(1, 2, 0))
        if colors is not None and space is not None and space.preview is not None and space.preview.smoothing:
            rgb = _smooth(rgb, space.preview.smoothing)
        pixels = rgb.add(1.0).mul(127.5).clamp(0, 255).nan_to_num(0.0).to(device="cpu", dtype=torch.uint8)
        return Image.fromarray(pixels.contiguous().numpy())


def _first(latents: torch.Tensor, space: LatentSpace | None) -> torch.Tensor:
    """Return the first image or frame as (channels, height, width)."""
    dimensions = 4 if space is not None and space.frames else 3
    first = latents[0] if latents.ndim > dimensions else latents
    return first[:, 0] if first.ndim > 3 else first  # noqa: PLR2004 - channels, height, width


@cache
def _of_space(space: LatentSpace) -> LatentColors | None:
    if space.preview is None:
        return None
    return LatentColors(torch.tensor(space.preview.weights), torch.tensor(space.preview.bias))


def _smooth(rgb: torch.Tensor, kernel: Matrix) -> torch.Tensor:
    weights = torch.tensor(kernel, device=rgb.device)[None, None]
    smoothed = functional.conv2d(rgb.permute(2, 0, 1).unsqueeze(1), weights, padding=1)
    return smoothed.squeeze(1).permute(1, 2, 0)


def _gray(latents: torch.Tensor) -> torch.Tensor:
    """Return a grayscale image for latents of an unknown space."""
    mean = latents.mean(dim=0)
    return (mean / mean.abs().max().clamp(min=1e-6)).unsqueeze(-1).expand(-1, -1, 3)


def fit(encode: Callable[[torch.Tensor], torch.Tensor], side: int = 128, count: int = 16) -> LatentColors:
    """Fit the map for an autoencoder by least squares over `count` images of `side` squared that it encodes.

    `encode` takes images (n, 3, side, side) in -1..1 and returns scaled latents. The images are patches of many
    colors and sizes.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    large, small = (torch.rand((count, 3, cells, cells), generator=generator) for cells in (3, 8))
    strength = torch.linspace(0.0, 0.3, count).reshape(-1, 1, 1, 1)
    cells = [torch.nn.functional.interpolate(patches, size=(side, side), mode="nearest") for patches in (large, small)]
    images = torch.lerp(cells[0], cells[1], strength) * 2.0 - 1.0
    with torch.inference_mode():
        latents = encode(images).float().cpu()
    targets = torch.nn.functional.adaptive_avg_pool2d(images, latents.shape[-2:]).permute(0, 2, 3, 1).reshape(-1, 3)
    inputs = latents.clone().permute(0, 2, 3, 1).reshape(len(targets), -1)
    inputs = torch.cat([inputs, _products(inputs), torch.ones(len(inputs), 1)], dim=1)
    solution = torch.linalg.lstsq(inputs, targets).solution
    return LatentColors(solution[:-1].clone(), solution[-1].clone())
