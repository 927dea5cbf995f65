"""Stored conditioning of CogView4."""

from dataclasses import dataclass

import torch

from invokeclone.engine.conditioning import ConditioningTensors


@dataclass
class CogView4ConditioningInfo(ConditioningTensors):
    """GLM's embeddings (1, tokens, width)."""

    glm_embeds: torch.Tensor
