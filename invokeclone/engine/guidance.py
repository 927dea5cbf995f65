"""What a UNet predicts under classifier-free guidance: two prompts, regions, rescaling, one call or two.

It knows diffusers' UNet call and text embeddings. How steps are made of predictions it refuses to know.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from invokeclone.engine.conditioning import TextGuide

_LEVELS = 8
"""Times a UNet may halve its picture, more than any does."""


@dataclass
class Guidance:
    """The prompts and how strongly they pull. `scale` is one number or one for each step."""

    positive: TextGuide
    negative: TextGuide
    scale: float | list[float] = 7.5
    rescale: float = 0.0
    sequential: bool = False
    """Two calls of the model instead of one with twice the batch: slower, with less memory."""

    def scale_at(self, step: int) -> float:
        """Return the scale of a step; a list that is too short goes on with its last value."""
        if isinstance(self.scale, list):
            return self.scale[min(step, len(self.scale) - 1)]
        return self.scale


@dataclass
class UNetPredictor:
    """Predicts with a UNet; made for one denoise run, its tensors on the UNet's device and in its number format.

    `extra` (1, channels, height, width) goes in beside the latents, for inpainting models. `added` are the conditions of SDXL,
    batched as (negative, positive).
    """

    unet: Any
    guidance: Guidance
    dtype: torch.dtype
    device: torch.device
    extra: torch.Tensor | None = None
    added: dict[str, torch.Tensor] | None = None
    _attention: "_RegionalAttention | None" = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._negative = self.guidance.negative.embeds.to(device=self.device, dtype=self.dtype)
        self._positive = self.guidance.positive.embeds.to(device=self.device, dtype=self.dtype)
        if self.extra is not None:
            self.extra = self.extra.to(device=self.device, dtype=self.dtype)
        self._both, self._both_mask = _side_by_side(self._negative, self._positive)

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        """Return the guided prediction for scaled latents, in float32."""
        scale = self.guidance.scale_at(step)
        inputs = latents.to(self.dtype)
        if self.extra is not None:
            inputs = torch.cat([inputs, self.extra.expand(len(inputs), -1, -1, -1)], dim=1)
        # 1. at scale 1 the negative prompt has no say
        if scale == 1.0:
            return self._call(inputs, timestep, self._positive, None, slice(1, 2)).float()
        # 2. both prompts, in one call or two
        if self.guidance.sequential:
            without = self._call(inputs, timestep, self._negative, None, slice(0, 1))
            with_text = self._call(inputs, timestep, self._positive, None, slice(1, 2))
        else:
            twice = torch.cat([inputs, inputs])
            without, with_text = self._call(twice, timestep, self._both, self._both_mask, slice(0, 2)).chunk(2)
        # 3. away from the one, towards the other
        without, with_text = without.float(), with_text.float()
        guided = torch.lerp(without, with_text, scale)
        return _rescale(guided, with_text, self.guidance.rescale) if self.guidance.rescale else guided

    def _call(
        self, inputs: torch.Tensor, timestep: torch.Tensor, embeds: torch.Tensor, mask: torch.Tensor | None, side: slice
    ) -> torch.Tensor:
        added = {name: value[side] for name, value in self.added.items()} if self.added else None
        if self._attention is not None:
            self._attention.side = side
            mask = None
        prediction: torch.Tensor = self.unet(
            inputs,
            timestep,
            encoder_hidden_states=embeds,
            encoder_attention_mask=mask,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return prediction

    @contextmanager
    def regions(self, height: int, width: int) -> Iterator[None]:
        """Let each place of the picture (of `height` by `width` latents) hear only the prompts of its regions, if there are any."""
        guides = (self.guidance.negative, self.guidance.positive)
        if all(guide.regions is None for guide in guides):
            yield
            return
        self._attention = _RegionalAttention(guides, height, width, self.dtype, self.device)
        before = self.unet.attn_processors
        own = {name: self._attention if ".attn2." in name else processor for name, processor in before.items()}
        self.unet.set_attn_processor(own)
        try:
            yield
        finally:
            self.unet.set_attn_processor(before)
            self._attention = None


class _RegionalAttention:
    """Diffusers' attention with a mask per place and token."""

    def __init__(
        self, guides: tuple[TextGuide, TextGuide], height: int, width: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.side = slice(0, 2)
        self._guides: tuple[TextGuide, ...] = guides
        self._dtype, self._device = dtype, device
        self._attend = AttnProcessor2_0()
        self._sizes: dict[int, tuple[int, int]] = {}
        for _ in range(_LEVELS):
            self._sizes.setdefault(height * width, (height, width))
            height, width = (height + 1) // 2, (width + 1) // 2
        self._biases: dict[tuple[int, int, int], torch.Tensor] = {}

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend; called by diffusers."""
        if encoder_hidden_states is not None:
            attention_mask = self._bias(hidden_states.shape[1], encoder_hidden_states.shape[1])
        result: torch.Tensor = self._attend(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        return result

    def _bias(self, places: int, tokens: int) -> torch.Tensor:
        """Return what is added to the attention, (prompts, places, tokens): 0 where a token is heard, else minus infinity."""
        key = (places, tokens, self.side.start)
        if key not in self._biases:
            chosen = self._guides[self.side]
            heard = [_heard(guide, self._sizes[places], tokens) for guide in chosen]
            bias = torch.zeros((len(heard), places, tokens))
            bias.masked_fill_(~torch.stack(heard), float("-inf"))
            self._biases[key] = bias.to(device=self._device, dtype=self._dtype)
        return self._biases[key]


def _heard(guide: TextGuide, size: tuple[int, int], tokens: int) -> torch.Tensor:
    """Return which tokens each place hears, (places, tokens); a place that no prompt claims hears all of them."""
    places = size[0] * size[1]
    own = guide.embeds.shape[1]
    heard = torch.zeros((places, tokens), dtype=torch.bool)
    for start, end, mask in guide.regions or [(0, own, None)]:
        if mask is None:
            heard[:, start:end] = True
        else:
            small = functional.interpolate(mask[None, None].float(), size=size, mode="nearest")
            heard[:, start:end] = small.reshape(places, 1).bool()
    heard[~heard.any(dim=1), :own] = True
    return heard


def _side_by_side(negative: torch.Tensor, positive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return both as one batch, with a mask of the real tokens (2, tokens) when one is longer than the other."""
    lengths = [negative.shape[1], positive.shape[1]]
    if lengths[0] == lengths[1]:
        return torch.cat([negative, positive]), None
    longest = max(lengths)
    padded = [functional.pad(e, (0, 0, 0, longest - e.shape[1])) for e in (negative, positive)]
    counts = torch.arange(longest, device=negative.device)
    return torch.cat(padded), torch.stack([counts < length for length in lengths])


def _rescale(guided: torch.Tensor, with_text: torch.Tensor, share: float) -> torch.Tensor:
    """Bring the spread of a guided prediction back towards the unguided one's (Lin et al., arXiv 2305.08891, 3.4)."""
    axes = tuple(range(1, guided.ndim))
    factor = with_text.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return torch.lerp(guided, guided * factor, share)
