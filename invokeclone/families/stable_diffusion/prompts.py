"""SDXL's conditioning: two text encoders, pooled embeddings, sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from invokeclone.components.clip.encode import encode_pooled, encode_prompt, skip_layers
from invokeclone.families.stable_diffusion.conditioning import SDXLConditioningInfo

CHUNK = 77
"""Tokens per chunk."""


@dataclass(frozen=True)
class EncodedText:
    """A text encoded by one of SDXL's encoders, on the CPU."""

    embeds: torch.Tensor
    """Shape (1, n * 77, width)."""
    pooled: torch.Tensor | None
    """Shape (1, width) for the second encoder, None for the first."""


def encode_text(
    tokenizer: Any, text_encoder: Any, text: str, device: torch.device, skip: int = 0, *, pooled: bool
) -> EncodedText:
    """Encode a text without the last `skip` layers of the encoder.

    Raises ValueError for a text with a syntax error, and if `pooled` is requested from an encoder without that
    embedding.
    """
    if pooled and not hasattr(text_encoder, "text_projection"):
        raise ValueError(
            "this text encoder has no pooled embedding: connect the second text encoder (CLIP 2) of an SDXL model to CLIP 2"
        )
    with skip_layers(text_encoder, skip):
        embeds = encode_prompt(tokenizer, text_encoder, text, device, penultimate=True).cpu()
        return EncodedText(embeds, encode_pooled(tokenizer, text_encoder, text, device).cpu() if pooled else None)


def empty_text(text_encoder: Any, *, pooled: bool) -> EncodedText:
    """Return zeros as the embeddings of an empty text."""
    width, dtype = text_encoder.config.hidden_size, text_encoder.dtype
    embeds = torch.zeros((1, CHUNK, width), dtype=dtype)
    return EncodedText(embeds, torch.zeros((1, width), dtype=dtype) if pooled else None)


def conditioning(texts: Sequence[EncodedText], numbers: Sequence[float]) -> SDXLConditioningInfo:
    """Return the conditioning of the texts of one or two encoders.

    The embeddings are concatenated along the width, the shorter padded with zeros; the pooled one is the last
    text's. `numbers` are height and width of the original, top and left of its crop, height and width of the
    target; for the refiner the first four and the aesthetic score. Raises ValueError if the last text has no pooled
    embedding.
    """
    longest = max(text.embeds.shape[1] for text in texts)
    sides = [functional.pad(text.embeds, (0, 0, 0, longest - text.embeds.shape[1])) for text in texts]
    pooled = texts[-1].pooled
    if pooled is None:
        raise ValueError("the second text encoder's pooled embedding is missing")
    embeds = torch.cat(sides, dim=-1)
    return SDXLConditioningInfo(embeds, pooled, torch.tensor([list(numbers)], dtype=embeds.dtype))
