"""Cross-attention in which each location attends to the prompts of its regions only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from invokeclone.families.stable_diffusion.conditioning import Region, TextConditioning

_HIDDEN = -10000.0
"""Added to the attention score of what a location is not to attend to."""
_HALF = 0.5


class RegionalAttention:
    """Diffusers' attention with a score per location and token. Made for one denoise run over latents of one size."""

    def __init__(self, height: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        """Serve latents of `height` by `width`."""
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.conditioning: TextConditioning | None = None
        """Of the present call of the UNet."""
        self._size = (height, width)
        self._dtype, self._device = dtype, device
        self._attend = AttnProcessor2_0()
        self._scores: dict[tuple[int, int], torch.Tensor] = {}

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend; called by diffusers."""
        if encoder_hidden_states is not None and self.conditioning is not None and self.conditioning.is_regional:
            attention_mask = self._score(self.conditioning, hidden_states.shape[1])
        result: torch.Tensor = self._attend(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        return result

    def _score(self, conditioning: TextConditioning, locations: int) -> torch.Tensor:
        """Return what is added to the attention scores, (batch, locations, tokens)."""
        key = (id(conditioning), locations)
        if key not in self._scores:
            rows = [
                self._row(regions, length, conditioning.embeds.shape[1], locations)
                for regions, length in zip(conditioning.regions, conditioning.lengths, strict=True)
            ]
            self._scores[key] = torch.stack(rows).to(device=self._device, dtype=self._dtype)
        return self._scores[key]

    def _row(self, regions: tuple[Region, ...], length: int, tokens: int, locations: int) -> torch.Tensor:
        score = torch.zeros((locations, tokens))
        for region in regions:
            if region.mask is not None:
                inside = _at_level(region.mask, self._size, locations) > _HALF
                score[:, region.first : region.end] += torch.where(inside, 0.0, _HIDDEN).reshape(locations, 1)
        score[:, length:] += _HIDDEN  # padding
        return score


def _at_level(mask: torch.Tensor, size: tuple[int, int], locations: int) -> torch.Tensor:
    """Return a mask at the level of the UNet that has so many locations: at the latents' size, then halved by its maximum.

    Raises ValueError when no level has.
    """
    level = functional.interpolate((mask.float() > _HALF).float()[None, None].cpu(), size=size, mode="nearest")
    while level.shape[-1] * level.shape[-2] != locations:
        if level.shape[-1] * level.shape[-2] < locations or level.shape[-2:] == (1, 1):
            raise ValueError(f"no level of latents of {size[1]} x {size[0]} has {locations} locations")
        level = functional.max_pool2d(level, kernel_size=2, stride=2, ceil_mode=True)
    return level.reshape(locations)


@contextmanager
def regional_attention(unet: Any, attention: RegionalAttention | None) -> Iterator[None]:
    """Let a UNet's cross-attention go through `attention`, if there is one."""
    if attention is None:
        yield
        return
    before = unet.attn_processors
    unet.set_attn_processor({n: attention if ".attn2." in n else processor for n, processor in before.items()})
    try:
        yield
    finally:
        unet.set_attn_processor(before)
