"""What prompts become for Stable Diffusion: tensors for nodes to hand on, and a batch of them for the UNet.

Community nodes take BasicConditioningInfo and SDXLConditioningInfo apart and put them together, so their fields are a contract.
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
    """SD1, SD2: `embeds` (1, tokens, width)."""

    embeds: torch.Tensor


@dataclass
class SDXLConditioningInfo(BasicConditioningInfo):
    """SDXL: pooled embeddings (1, width) and the six numbers of size and crop (1, 6) beside the tokens'."""

    pooled_embeds: torch.Tensor
    add_time_ids: torch.Tensor


@dataclass(frozen=True)
class Region:
    """A stretch of tokens and where in the image it holds."""

    first: int
    """Its first token."""
    end: int
    """The token after its last."""
    mask: torch.Tensor | None
    """(height, width), above one half where it holds; None: everywhere."""


@dataclass(frozen=True)
class TextConditioning:
    """Encoded prompts, a row for each row of the latents. Implements `engine.guidance.Conditioning`."""

    embeds: torch.Tensor
    """(batch, tokens, width), shorter rows padded with zeros."""
    lengths: tuple[int, ...]
    """Tokens of each row that are not padding."""
    regions: tuple[tuple[Region, ...], ...]
    """Of each row; empty: all tokens hold everywhere."""
    positive: tuple[bool, ...]
    """Whether each row is what the image shall show; else what it shall not."""
    pooled: torch.Tensor | None = None
    """(batch, width), of SDXL and its refiner."""
    time_ids: torch.Tensor | None = None
    """(batch, 6 or 5), SDXL's sizes and crops, the refiner's sizes, crops and aesthetic score."""

    @classmethod
    def of_prompts(
        cls, prompts: Sequence[tuple[BasicConditioningInfo, torch.Tensor | None]], *, positive: bool = True
    ) -> Self:
        """Return one row: prompts, each with the mask of its region if it has one, behind each other.

        SDXL's pooled embeddings and sizes are those of the last prompt without a mask, else of the first.
        """
        widths = {info.embeds.shape[-1] for info, _ in prompts}
        if len(widths) > 1:
            sizes = " and ".join(str(width) for width in sorted(widths))
            raise ValueError(f"prompts of different models are joined (embeddings of widths {sizes}): {_REMEDY}")
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
        """Return these rows and then those of `other`."""
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
        """Return these rows only, without padding that none of them needs."""
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
        """Return a single row `batch` times; as many rows are left as they are. Raises ValueError for another number."""
        if len(self.embeds) == batch:
            return self
        if len(self.embeds) != 1:
            raise ValueError(f"there are {len(self.embeds)} prompts for {batch} latents")
        pooled, ids = (None if t is None else t.expand(batch, -1) for t in (self.pooled, self.time_ids))
        embeds = self.embeds.expand(batch, -1, -1)
        return type(self)(embeds, self.lengths * batch, self.regions * batch, self.positive * batch, pooled, ids)

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Return the same with its tensors on `device` in `dtype`."""
        names = ("embeds", "pooled", "time_ids")
        tensors = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **{name: value.to(device=device, dtype=dtype) for name, value in tensors.items()})

    def check_fits(self, config: Any, side: str) -> None:
        """Raise ValueError where a UNet of this configuration cannot be conditioned on the prompts of this side of the guidance."""
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
        """What SDXL's UNet gets beside the embeddings; None for others."""
        if self.pooled is None or self.time_ids is None:
            return None
        return {"text_embeds": self.pooled, "time_ids": self.time_ids}

    @property
    def is_regional(self) -> bool:
        """Whether any row has regions."""
        return any(self.regions)

    def token_mask(self) -> torch.Tensor | None:
        """Return (batch, tokens), true for tokens that are not padding; None where there is no padding."""
        tokens = self.embeds.shape[1]
        if all(length == tokens for length in self.lengths):
            return None
        counts = torch.arange(tokens, device=self.embeds.device)
        return torch.stack([counts < length for length in self.lengths])


def _concat(first: torch.Tensor | None, second: torch.Tensor | None) -> torch.Tensor | None:
    if first is None or second is None:
        return None
    return torch.cat([first, second])
