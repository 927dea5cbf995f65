"""What prompts become for FLUX."""

from dataclasses import dataclass

import torch

from invokeclone.engine.conditioning import ConditioningTensors


@dataclass
class FLUXConditioningInfo(ConditioningTensors):
    """FLUX: pooled CLIP embeddings (1, width) and T5's (1, tokens, width)."""

    clip_embeds: torch.Tensor
    t5_embeds: torch.Tensor
