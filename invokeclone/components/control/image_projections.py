"""Image projections of IP-Adapters: from the features of CLIP's vision model to tokens that a denoiser attends to.

IP-Adapter is arXiv 2308.06721; the resampler is that of Flamingo (arXiv 2204.14198, 3.1). Sizes come from the tensors.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from invokeclone.components.clip.vision import image_embeds, penultimate

_HEAD = 64
"""Width of an attention head."""


class ImageProjection(nn.Module):  # type: ignore[misc]
    """Projects images to tokens (images, tokens, width), with unconditional tokens for guidance."""

    def tokens(
        self, encoder: Any, pixels: torch.Tensor, device: torch.device | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tokens of images (number, 3, height, width), and unconditional ones.

        `pixels` are on the encoder's device; `device` is the projection's, if it is another. Raises ValueError for another
        encoder.
        """
        states, no_image = (features.to(device or features.device) for features in self.features(encoder, pixels))
        if states.shape[-1] != self.width_taken:
            raise ValueError(
                f"the IP-Adapter needs {self.width_taken} values per image feature, but its image encoder has "
                f"{states.shape[-1]}: select the image encoder that it was trained with"
            )
        return self(states), self(no_image)

    def features(self, encoder: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the projection's inputs for the images, and for the unconditional tokens."""
        return penultimate(encoder, pixels), penultimate(encoder, torch.zeros_like(pixels))

    width_taken: int
    """Width of the input features."""


class LinearProjection(ImageProjection):
    """Projects the image's embedding to a few tokens."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Create the layers with the sizes of `tensors`."""
        super().__init__()
        outputs, inputs = tensors["proj.weight"].shape
        self.width_taken = inputs
        self.proj = nn.Linear(inputs, outputs)
        self.norm = nn.LayerNorm(len(tensors["norm.weight"]))

    def features(self, encoder: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images' embeddings, and zeros."""
        embeds = image_embeds(encoder, pixels)
        return embeds, torch.zeros_like(embeds)

    def forward(self, embeds: torch.Tensor) -> torch.Tensor:
        """Return (images, tokens, width)."""
        tokens: torch.Tensor = self.norm(self.proj(embeds).reshape(len(embeds), -1, self.norm.normalized_shape[0]))
        return tokens


class FullProjection(ImageProjection):
    """Projects each patch of the image to a token."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Create the layers with the sizes of `tensors`."""
        super().__init__()
        between, inputs = tensors["proj.0.weight"].shape
        width = len(tensors["proj.3.weight"])
        self.proj = nn.Sequential(nn.Linear(inputs, between), nn.GELU(), nn.Linear(between, width), nn.LayerNorm(width))
        self.width_taken = inputs

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return (images, patches + 1, width)."""
        tokens: torch.Tensor = self.proj(states)
        return tokens


class _ResamplerAttention(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, states: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        states, latents = self.norm1(states), self.norm2(latents)
        query = self._heads(self.to_q(latents))
        key, value = map(self._heads, self.to_kv(torch.cat([states, latents], dim=1)).chunk(2, dim=-1))
        scale = _HEAD**-0.25  # applied to both factors so that half precision does not overflow
        scores = (query * scale) @ (key * scale).transpose(-2, -1)
        attended = torch.softmax(scores.float(), dim=-1).to(value.dtype) @ value
        result: torch.Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return result

    @staticmethod
    def _heads(values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(-1, (-1, _HEAD)).transpose(1, 2)


def _feed_forward(width: int, between: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, between, bias=False), nn.GELU(), nn.Linear(between, width, bias=False)
    )


class Resampler(ImageProjection):
    """Projects to a fixed number of tokens: learned queries that attend to the patches of the image."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Create the layers with the sizes of `tensors`."""
        super().__init__()
        width, inputs = tensors["proj_in.weight"].shape
        outputs = len(tensors["proj_out.weight"])
        depth = sum(name.endswith(".0.to_q.weight") for name in tensors)
        inner, between = len(tensors["layers.0.0.to_q.weight"]), len(tensors["layers.0.1.1.weight"])
        self.latents = nn.Parameter(torch.empty(tensors["latents"].shape))
        self.width_taken = inputs
        self.proj_in = nn.Linear(inputs, width)
        self.layers = nn.ModuleList(
            nn.ModuleList([_ResamplerAttention(width, inner), _feed_forward(width, between)]) for _ in range(depth)
        )
        self.proj_out = nn.Linear(width, outputs)
        self.norm_out = nn.LayerNorm(outputs)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return (images, queries, width)."""
        states = self.proj_in(states)
        latents = self.latents.expand(len(states), -1, -1)
        for layer in self.layers:
            attention, feed_forward = layer.children()
            latents = attention(states, latents) + latents
            latents = feed_forward(latents) + latents
        tokens: torch.Tensor = self.norm_out(self.proj_out(latents))
        return tokens


_KINDS: dict[str, type[LinearProjection | FullProjection | Resampler]] = {
    "proj.weight": LinearProjection,
    "proj.0.weight": FullProjection,
    "proj_in.weight": Resampler,
}
"""Projection classes by a tensor that only this kind has."""


def load_projection(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> ImageProjection:
    """Return the projection with these tensors. Raises ValueError if they are of an unknown kind or incomplete."""
    kind = next((kind for name, kind in _KINDS.items() if name in tensors), None)
    if kind is None:
        raise ValueError("unknown kind of image projection")
    try:
        with torch.device("meta"):
            projection = kind(tensors)
        projection.load_state_dict({name: value.to(dtype) for name, value in tensors.items()}, assign=True)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"its image projection is incomplete: {error}") from error
    projection.eval()
    return projection
