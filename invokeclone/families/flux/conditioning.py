"""FLUX.1's prompts as the denoiser uses them: one text sequence, and which image tokens each part of it applies to."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from invokeclone.components.flux.regions import PromptRegion, attention_mask
from invokeclone.engine.conditioning import ConditioningTensors


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
    return FluxConditioning(text, pooled, attention_mask(regions, rows, columns), positive)
