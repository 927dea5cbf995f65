"""Small pictures of latents while they are denoised: a map from latent channels to colours, no decoder.

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
    """Red, green and blue in -1..1 from latents: `weights` (features, 3) and `bias` (3).

    The features are the channels; with more weights than channels, also the products of each two of them.
    """

    weights: torch.Tensor
    bias: torch.Tensor

    def fits(self, channels: int) -> bool:
        """Tell whether the map is for latents of so many channels."""
        return len(self.weights) in (channels, channels + channels * (channels + 1) // 2)

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the colours (…, 3) of latents (…, channels)."""
        channels = latents.shape[-1]
        features = latents if len(self.weights) == channels else torch.cat([latents, _products(latents)], dim=-1)
        return features @ self.weights.to(latents.device) + self.bias.to(latents.device)


def _products(latents: torch.Tensor) -> torch.Tensor:
    """Return the products of each two channels, the squares too."""
    rows, columns = torch.triu_indices(latents.shape[-1], latents.shape[-1])
    return latents[..., rows] * latents[..., columns]


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
        rgb = colors(one.permute(1, 2, 0)) if colors is not None and colors.fits(len(one)) else _gray(one)
        pixels = rgb.add(1.0).mul(127.5).clamp(0, 255).nan_to_num(0.0).to(device="cpu", dtype=torch.uint8)
        return Image.fromarray(pixels.contiguous().numpy())


def _gray(latents: torch.Tensor) -> torch.Tensor:
    """Make a picture for latents that nobody told anything about."""
    mean = latents.mean(dim=0)
    return (mean / mean.abs().max().clamp(min=1e-6)).unsqueeze(-1).expand(-1, -1, 3)


def fit(encode: Callable[[torch.Tensor], torch.Tensor], side: int = 128, count: int = 16) -> LatentColors:
    """Fit the map of an autoencoder by least squares over `count` pictures of `side` squared that it encodes.

    `encode` takes pictures (n, 3, side, side) in -1..1 and returns scaled latents. The pictures are patches of all colours,
    large and small. It costs what encoding them costs.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    large, small = (torch.rand((count, 3, cells, cells), generator=generator) for cells in (3, 8))
    strength = torch.linspace(0.0, 0.3, count).reshape(-1, 1, 1, 1)
    cells = [torch.nn.functional.interpolate(patches, size=(side, side), mode="nearest") for patches in (large, small)]
    pictures = torch.lerp(cells[0], cells[1], strength) * 2.0 - 1.0
    with torch.inference_mode():
        latents = encode(pictures).float().cpu()
    wanted = torch.nn.functional.adaptive_avg_pool2d(pictures, latents.shape[-2:]).permute(0, 2, 3, 1).reshape(-1, 3)
    inputs = latents.clone().permute(0, 2, 3, 1).reshape(len(wanted), -1)
    inputs = torch.cat([inputs, _products(inputs), torch.ones(len(inputs), 1)], dim=1)
    solution = torch.linalg.lstsq(inputs, wanted).solution
    return LatentColors(solution[:-1].clone(), solution[-1].clone())
