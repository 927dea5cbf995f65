"""What a prompt becomes: tensors with the names each family gives them; how they are made it refuses to know.

Community nodes take these classes apart and put them together, so their fields are a contract.
"""

from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

import torch


@dataclass
class _Tensors:
    """A set of named tensors that move together."""

    def to(self, device: torch.device | str | None, dtype: torch.dtype | None = None) -> Self:
        """Return the same with its tensors on `device`, those of floats in `dtype`; nothing is copied if all is so already."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        moved = {
            name: value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            for name, value in tensors.items()
        }
        return replace(self, **moved)


@dataclass
class BasicConditioningInfo(_Tensors):
    """SD1, SD2: `embeds` (1, tokens, width)."""

    embeds: torch.Tensor


@dataclass
class SDXLConditioningInfo(BasicConditioningInfo):
    """SDXL: pooled embeddings (1, width) and the six numbers of size and crop (1, 6) beside the tokens'."""

    pooled_embeds: torch.Tensor
    add_time_ids: torch.Tensor


@dataclass
class FLUXConditioningInfo(_Tensors):
    """FLUX: pooled CLIP embeddings (1, width) and T5's (1, tokens, width)."""

    clip_embeds: torch.Tensor
    t5_embeds: torch.Tensor


@dataclass
class SD3ConditioningInfo(_Tensors):
    """SD3: of each CLIP the pooled (1, width) and the token embeddings (1, tokens, width), and T5's if there is one."""

    clip_l_pooled_embeds: torch.Tensor
    clip_l_embeds: torch.Tensor
    clip_g_pooled_embeds: torch.Tensor
    clip_g_embeds: torch.Tensor
    t5_embeds: torch.Tensor | None


@dataclass
class CogView4ConditioningInfo(_Tensors):
    """CogView4: GLM's embeddings (1, tokens, width)."""

    glm_embeds: torch.Tensor


Info = TypeVar("Info", bound=_Tensors)


@dataclass
class ConditioningFieldData(Generic[Info]):
    """What a ConditioningField names: one conditioning, in a list that leaves room for more."""

    conditionings: list[Any]


@dataclass
class TextGuide:
    """The conditionings of one side of the guidance, put behind each other along the tokens.

    `embeds` is (1, tokens, width). `regions` says for each stretch of tokens where in the picture it holds:
    (first token, token after the last, mask (height, width) of bool, or None for everywhere); None: all hold everywhere.
    """

    embeds: torch.Tensor
    regions: list[tuple[int, int, torch.Tensor | None]] | None = None


def join(parts: list[tuple[BasicConditioningInfo, torch.Tensor | None]]) -> TextGuide:
    """Put conditionings, each with the mask of its region if it has one, behind each other."""
    embeds = torch.cat([info.embeds for info, _ in parts], dim=1)
    if all(mask is None for _, mask in parts):
        return TextGuide(embeds)
    regions, start = [], 0
    for info, mask in parts:
        end = start + info.embeds.shape[1]
        regions.append((start, end, None if mask is None else mask.reshape(mask.shape[-2:]).bool()))
        start = end
    return TextGuide(embeds, regions)
