"""FLUX.1's prompts as the denoiser uses them: one text sequence, and which image tokens each part of it applies to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from invokeclone.engine.conditioning import ConditioningTensors


@dataclass
class PromptRegion:
    """A part of the text: embeddings (1, tokens, width) and a mask (…, height, width) of the region it applies to.

    A mask of None means the part of the image that no other mask covers.
    """

    embeds: torch.Tensor
    mask: torch.Tensor | None = None


@dataclass
class FluxConditioning(ConditioningTensors):
    """One side of the guidance: `text` (1, tokens, width) and CLIP's `pooled` embedding (1, width)."""

    text: torch.Tensor
    pooled: torch.Tensor
    attention_mask: torch.Tensor | None = None
    """Which tokens, text first, attend to which: boolean (1, 1, tokens, tokens). None permits everything."""
    positive: bool = True
    """Whether controls act on this side."""


def build_conditioning(
    regions: Sequence[PromptRegion], pooled: torch.Tensor, rows: int, columns: int, *, positive: bool
) -> FluxConditioning:
    """Return the conditioning of an image of `rows` by `columns` tokens.

    Raises ValueError for embeddings of different widths.
    """
    if len(widths := {region.embeds.shape[-1] for region in regions}) > 1:
        raise ValueError(
            f"prompts and Redux images have embeddings of different widths ({', '.join(map(str, sorted(widths)))}): "
            "encode all with the T5 encoder and Redux model of FLUX.1"
        )
    text = torch.cat([region.embeds for region in regions], dim=1)
    mask = None
    if any(region.mask is not None for region in regions):
        mask = _attention_mask(regions, text.shape[1], rows, columns)
    return FluxConditioning(text, pooled, mask, positive)


def _attention_mask(regions: Sequence[PromptRegion], text_tokens: int, rows: int, columns: int) -> torch.Tensor:
    """Return a boolean mask (1, 1, tokens, tokens).

    A part of the text attends to itself and to its region; a region attends to its text and to itself; image tokens
    outside all regions attend to the whole image.
    """
    image_tokens = rows * columns
    masks = [None if region.mask is None else _on_tokens(region.mask, rows, columns) for region in regions]
    covered = torch.stack([mask for mask in masks if mask is not None]).any(dim=0)
    attends = torch.zeros(text_tokens + image_tokens, text_tokens + image_tokens, dtype=torch.bool)
    image = slice(text_tokens, None)
    first = 0
    for region, mask in zip(regions, masks, strict=True):
        own_text = slice(first, first + region.embeds.shape[1])
        area = ~covered if mask is None else mask
        attends[own_text, own_text] = True
        attends[own_text, image] = area
        attends[image, own_text] = area[:, None]
        if mask is not None:
            attends[image, image] |= torch.outer(mask, mask)
        first = own_text.stop
    attends[image, image] |= ~covered[:, None]
    return attends[None, None]


def _on_tokens(mask: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return a region's mask as one boolean per image token."""
    planes = mask.reshape(1, 1, *mask.shape[-2:]).float()
    resized = functional.interpolate(planes, size=(rows, columns), mode="nearest")
    return (resized > 0.5).flatten()  # noqa: PLR2004 - a half
