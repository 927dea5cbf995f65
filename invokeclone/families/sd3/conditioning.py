"""What prompts become for Stable Diffusion 3."""

from dataclasses import dataclass

import torch

from invokeclone.engine.conditioning import ConditioningTensors


@dataclass
class SD3ConditioningInfo(ConditioningTensors):
    """Of each CLIP the pooled (1, width) and the token embeddings (1, tokens, width), and T5's if there is one."""

    clip_l_pooled_embeds: torch.Tensor
    clip_l_embeds: torch.Tensor
    clip_g_pooled_embeds: torch.Tensor
    clip_g_embeds: torch.Tensor
    t5_embeds: torch.Tensor | None
