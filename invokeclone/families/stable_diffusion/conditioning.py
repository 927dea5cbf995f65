"""Stable Diffusion's conditioning: the stored form that nodes pass on, and the batch for the UNet.

Third-party nodes access the fields of BasicConditioningInfo and SDXLConditioningInfo, so these are part of the public
API.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch.nn import functional

from invokeclone.engine.conditioning import ConditioningTensors

_HALF = 0.5
_REMEDY = "encode the prompts with the text encoders of the main model that denoises, by the prompt node for its base"


@dataclass
class BasicConditioningInfo(ConditioningTensors):
    """Conditioning of SD1 and SD2: `embeds` (1, tokens, width)."""

    embeds: torch.Tensor


@dataclass
class SDXLConditioningInfo(BasicConditioningInfo):
    """Conditioning of SDXL: also pooled embeddings (1, width) and six numbers of size and crop (1, 6)."""

    pooled_embeds: torch.Tensor
    add_time_ids: torch.Tensor


@dataclass(frozen=True)
class Region:
    """A range of tokens and the image region that it applies to."""

    first: int
    """First token of the range."""
    end: int
    """End of the range, exclusive."""
    mask: torch.Tensor | None
    """Shape (height, width), above 0.5 inside the region; None for the whole image."""


@dataclass(frozen=True)
class TextConditioning:
    """Encoded prompts, one row per row of the latents. Implements `engine.guidance.DenoiserConditioning`."""

    embeds: torch.Tensor
    """Shape (batch, tokens, width); shorter rows are padded with zeros."""
    lengths: tuple[int, ...]
    """Number of tokens of each row without padding."""
    regions: tuple[tuple[Region, ...], ...]
    """Regions of each row; empty if all tokens apply to the whole image."""
    positive: tuple[bool, ...]
    """Whether each row belongs to the positive prompt."""
    pooled: torch.Tensor | None = None
    """Pooled embeddings (batch, width) of SDXL and its refiner."""
    time_ids: torch.Tensor | None = None
    """Sizes and crops of SDXL (batch, 6), or the refiner's sizes, crops and aesthetic score (batch, 5)."""

    @classmethod
    def of_prompts(
        cls, prompts: Sequence[tuple[BasicConditioningInfo, torch.Tensor | None]], *, positive: bool = True
    ) -> Self:
        """Return one row with the prompts in sequence, each with the mask of its region, if any.

        Pooled embeddings and sizes of SDXL are those of the last prompt without a mask, else of the first
        prompt.
        """
        widths = {info.embeds.shape[-1] for info, _ in prompts}
        if len(widths) > 1:
            sizes = " and ".join(str(width) for width in sorted(widths))
            raise ValueError(f"cannot join prompts of different models (embeddings of widths {sizes}): {_REMEDY}")
        embeds = torch.cat([info.embeds for info, _ in prompts], dim=1)
        regions, first = [], 0
        for info, mask in prompts:
            end = first + info.embeds.shape[1]
            regions.append(Region(first, end, None if mask is None else mask.reshape(mask.shape[-2:])))
            first = end
        regional = any(region.mask is not None for region in regions)
        whole = next((info for info, mask in reversed(prompts) if mask is None), prompts[0][0])
        pooled, ids = (
            (whole.pooled_embeds, whole.add_time_ids) if isinstance(whole, SDXLConditioningInfo) else (None, None)
        )
        rows, row_regions = len(embeds), tuple(regions) if regional else ()
        return cls(embeds, (embeds.shape[1],) * rows, (row_regions,) * rows, (positive,) * rows, pooled, ids)

    def concat(self, other: Self) -> Self:
        """Return these rows followed by those of `other`."""
        longest = max(self.embeds.shape[1], other.embeds.shape[1])
        rows = [functional.pad(side.embeds, (0, 0, 0, longest - side.embeds.shape[1])) for side in (self, other)]
        return type(self)(
            torch.cat(rows),
            self.lengths + other.lengths,
            self.regions + other.regions,
            self.positive + other.positive,
            _concat(self.pooled, other.pooled),
            _concat(self.time_ids, other.time_ids),
        )

    def select_rows(self, rows: Sequence[int]) -> Self:
        """Return the given rows, without padding that none of them needs."""
        lengths = tuple(self.lengths[row] for row in rows)
        index = list(rows)
        return type(self)(
            self.embeds[index, : max(lengths)],
            lengths,
            tuple(self.regions[row] for row in rows),
            tuple(self.positive[row] for row in rows),
            None if self.pooled is None else self.pooled[index],
            None if self.time_ids is None else self.time_ids[index],
        )

    def expand(self, batch: int) -> Self:
        """Repeat a single row `batch` times; as many rows are returned unchanged.

        Raises ValueError for another number.
        """
        if len(self.embeds) == batch:
            return self
        if len(self.embeds) != 1:
            raise ValueError(f"{len(self.embeds)} prompts do not match {batch} latents")
        pooled, ids = (None if t is None else t.expand(batch, -1) for t in (self.pooled, self.time_ids))
        embeds = self.embeds.expand(batch, -1, -1)
        return type(self)(embeds, self.lengths * batch, self.regions * batch, self.positive * batch, pooled, ids)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Return it with its tensors on `device` in `dtype`."""
        names = ("embeds", "pooled", "time_ids")
        tensors = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **{name: value.to(device=device, dtype=dtype) for name, value in tensors.items()})

    def check_fits(self, config: Any, side: str) -> None:
        """Raise ValueError if a UNet of this configuration cannot use the prompts.

        `side` names the prompts' side of the guidance in messages.
        """
        width, expected = self.embeds.shape[-1], config.cross_attention_dim
        if width != expected:
            raise ValueError(
                f"the {side} prompt was encoded for another model (embeddings of width {width}, the UNet's is {expected}): "
                f"{_REMEDY}"
            )
        if config.addition_embed_type != "text_time":
            return
        if self.pooled is None or self.time_ids is None:
            raise ValueError(f"the {side} prompt has no sizes and pooled embedding, which SDXL needs: {_REMEDY}")
        numbers = self.pooled.shape[-1] + self.time_ids.shape[-1] * config.addition_time_embed_dim
        if numbers != config.projection_class_embeddings_input_dim:
            raise ValueError(
                f"the {side} prompt was encoded for another model ({self.time_ids.shape[-1]} sizes, SDXL has 6, its refiner 5): "
                f"{_REMEDY}"
            )

    @property
    def cond_kwargs(self) -> dict[str, torch.Tensor] | None:
        """Additional conditioning arguments of SDXL's UNet; None for other models."""
        if self.pooled is None or self.time_ids is None:
            return None
        return {"text_embeds": self.pooled, "time_ids": self.time_ids}

    @property
    def is_regional(self) -> bool:
        """Whether any row has regions."""
        return any(self.regions)

    def token_mask(self) -> torch.Tensor | None:
        """Return (batch, tokens), true for tokens that are not padding; None if there is no padding."""
        tokens = self.embeds.shape[1]
        if all(length == tokens for length in self.lengths):
            return None
        counts = torch.arange(tokens, device=self.embeds.device)
        return torch.stack([counts < length for length in self.lengths])


def _concat(first: torch.Tensor | None, second: torch.Tensor | None) -> torch.Tensor | None:
    if first is None or second is None:
        return None
    return torch.cat([first, second])
