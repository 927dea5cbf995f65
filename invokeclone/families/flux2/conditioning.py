"""FLUX.2's prompts: as they are stored, and as the denoiser uses them."""

from dataclasses import dataclass

import torch

from invokeclone.engine.conditioning import ConditioningTensors


@dataclass
class Flux2ConditioningInfo(ConditioningTensors):
    """Embeddings (1, tokens, width) of a prompt."""

    embeds: torch.Tensor


@dataclass
class Flux2Prompt(ConditioningTensors):
    """One side of the guidance: embeddings (1, tokens, width) of one prompt, or of several one after the other."""

    text: torch.Tensor
    attention_mask: torch.Tensor | None = None
    """Which tokens, text first, attend to which: boolean (1, 1, tokens, tokens). None permits everything."""
