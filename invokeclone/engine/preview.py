"""Small pictures of latents while they are denoised: a linear map from latent channels to colours, no decoder.

It knows the maps of common latent spaces and can fit one for any other. Who sends the picture where, it refuses to know.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from PIL import Image

from invokeclone.graph.taxonomy import BaseModelType


@dataclass(frozen=True)
class LatentColors:
    """Red, green and blue in -1..1 from latents: `weights` (channels, 3) and `bias` (3)."""

    weights: torch.Tensor
    bias: torch.Tensor


_SD = LatentColors(
    torch.tensor(
        [
            [0.3512, 0.2297, 0.3227],
            [0.3250, 0.4974, 0.2350],
            [-0.2829, 0.1762, 0.2721],
            [-0.2120, -0.2616, -0.7177],
        ]
    ),
    torch.zeros(3),
)
"""The map of Stable Diffusion 1's autoencoder as the diffusers community fitted it; SD2 has the same autoencoder."""

_KNOWN: dict[BaseModelType, LatentColors] = {
    BaseModelType.StableDiffusion1: _SD,
    BaseModelType.StableDiffusion2: _SD,
}
_current: ContextVar[LatentColors | None] = ContextVar("latent_colors", default=None)


def register(base: BaseModelType, colors: LatentColors) -> None:
    """Tell the map of a family's latents."""
    _KNOWN[base] = colors


@contextmanager
def using(colors: LatentColors | None) -> Iterator[None]:
    """Let previews on this thread use `colors` meanwhile, for a model whose autoencoder is not its family's; None: the family's."""
    token = _current.set(colors)
    try:
        yield
    finally:
        _current.reset(token)


def preview(latents: torch.Tensor, base: BaseModelType) -> Image.Image:
    """Return a picture with a pixel per latent of (batch, channels, height, width) or (channels, height, width); the first one."""
    with torch.inference_mode():
        one = (latents[0] if latents.ndim == 4 else latents).float()  # noqa: PLR2004 - dimensions
        colors = _current.get() or _KNOWN.get(base)
        if colors is None or colors.weights.shape[0] != one.shape[0]:
            rgb = _gray(one)
        else:
            weights, bias = colors.weights.to(one.device), colors.bias.to(one.device)
            rgb = torch.einsum("chw,cr->hwr", one, weights) + bias
        pixels = rgb.add(1.0).mul(127.5).clamp(0, 255).nan_to_num(0.0).to(device="cpu", dtype=torch.uint8)
        return Image.fromarray(pixels.contiguous().numpy(), mode=None)


def _gray(latents: torch.Tensor) -> torch.Tensor:
    """Make a picture for latents that nobody told anything about."""
    mean = latents.mean(dim=0)
    return (mean / mean.abs().max().clamp(min=1e-6)).unsqueeze(-1).expand(-1, -1, 3)


def fit(decode: Callable[[torch.Tensor], torch.Tensor], channels: int, side: int = 16, count: int = 8) -> LatentColors:
    """Fit the map of an autoencoder by least squares over `count` latents of `side` squared that it decodes.

    `decode` takes scaled latents (n, channels, side, side) and returns pictures (n, 3, …) in -1..1. The latents are
    patches of colour with a little noise, as pictures have them. It costs what decoding them costs.
    """
    with torch.inference_mode():
        generator = torch.Generator("cpu").manual_seed(0)
        patches = torch.randn((count, channels, side // 4, side // 4), generator=generator)
        latents = torch.nn.functional.interpolate(patches, size=(side, side), mode="nearest")
        latents = latents + 0.1 * torch.randn(latents.shape, generator=generator)
        pictures = torch.nn.functional.adaptive_avg_pool2d(decode(latents).float().cpu().clamp(-1, 1), (side, side))
        inputs = latents.permute(0, 2, 3, 1).reshape(-1, channels)
        inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
        solution = torch.linalg.lstsq(inputs, pictures.permute(0, 2, 3, 1).reshape(-1, 3)).solution
        return LatentColors(solution[:-1].clone(), solution[-1].clone())
