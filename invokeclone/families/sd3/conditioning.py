"""Stored conditioning of Stable Diffusion 3."""

from dataclasses import dataclass

import torch

from invokeclone.engine.conditioning import ConditioningTensors


@dataclass
class SD3ConditioningInfo(ConditioningTensors):
    """Pooled (1, width) and token embeddings (1, tokens, width) of each CLIP encoder, and T5's if present."""

    clip_l_pooled_embeds: torch.Tensor
    clip_l_embeds: torch.Tensor
    clip_g_pooled_embeds: torch.Tensor
    clip_g_embeds: torch.Tensor
    t5_embeds: torch.Tensor | None
