"""FLUX's stored conditioning."""

from dataclasses import dataclass

import torch

from invokeclone.engine.conditioning import ConditioningTensors


@dataclass
class FLUXConditioningInfo(ConditioningTensors):
    """Pooled CLIP embeddings (1, width) and T5 embeddings (1, tokens, width)."""

    clip_embeds: torch.Tensor
    t5_embeds: torch.Tensor
