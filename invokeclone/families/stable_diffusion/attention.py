"""Cross-attention with regional prompts and image prompts: each location attends only to the prompts of its regions.

Image prompts have their own attention, whose result is added to that of the text (arXiv 2308.06721).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from invokeclone.engine.controls import is_active, weight_at
from invokeclone.families.stable_diffusion.conditioning import Region, TextConditioning
from invokeclone.families.stable_diffusion.ip_adapter import ImagePrompt

_HIDDEN = -10000.0
"""Added to the attention scores of hidden tokens."""
_HALF = 0.5


class CrossAttention:
    """Cross-attention of the UNet with regional and image prompts, for one denoise run with a fixed latent size."""

    def __init__(
        self,
        height: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        image_prompts: Sequence[ImagePrompt] = (),
    ) -> None:
        """Create it for latents of `height` by `width`."""
        self._conditioning: TextConditioning | None = None
        self._weights: list[float] = [0.0] * len(image_prompts)
        self._size = (height, width)
        self._dtype, self._device = dtype, device
        self._prompts = image_prompts
        self._scores: dict[tuple[int, int], torch.Tensor] = {}
        self._masks: dict[tuple[int, int], torch.Tensor] = {}

    def prepare(self, conditioning: TextConditioning, index: int = 0, count: int = 1) -> None:
        """Set the prompts for the next UNet call, which belongs to call `index` of `count` of the loop."""
        self._conditioning = conditioning
        self._weights = [
            weight_at(prompt.weight, index) if is_active(index, count, prompt.begin, prompt.end) else 0.0
            for prompt in self._prompts
        ]

    def text_score(self, locations: int, otherwise: torch.Tensor | None) -> torch.Tensor | None:
        """Return the bias for the scores of the text tokens; `otherwise` if there are no regions."""
        if self._conditioning is None or not self._conditioning.is_regional:
            return otherwise
        return self._score(self._conditioning, locations)

    def attend_images(self, attend: "_Attend", layer: str, number: int, locations: int) -> Iterator[torch.Tensor]:
        """Yield the result of `attend` for each image prompt of a layer, weighted and masked."""
        if self._conditioning is None:
            return
        for prompt, weight in zip(self._prompts, self._weights, strict=True):
            if weight and prompt.is_for(layer):
                keys, values = self._keys_and_values(prompt, layer, number, self._conditioning.positive)
                if keys.shape[-1] != attend.width:
                    raise ValueError(
                        f"the IP-Adapter does not fit this model: its layer {number} is {keys.shape[-1]} wide, {layer} is "
                        f"{attend.width}; select one that was made for this main model"
                    )
                attended = weight * attend(keys, values)
                yield attended if prompt.mask is None else attended * self._mask(prompt, prompt.mask, locations)

    @staticmethod
    def _keys_and_values(
        prompt: ImagePrompt, layer: str, number: int, positive: Sequence[bool]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values (batch, tokens, width) of an image prompt for the rows of a call."""
        if number not in prompt.positive:
            raise ValueError(f"the IP-Adapter does not fit this model: it has no layer {number} for {layer}")
        image, no_image = prompt.positive[number], prompt.negative[number]
        if not prompt.is_negative_in(layer):
            rows = [image if is_positive else no_image for is_positive in positive]
            return torch.cat([row.keys for row in rows]), torch.cat([row.values for row in rows])
        zeros = torch.zeros_like(image.values)  # attending to zeros gives zero
        return (
            image.keys.expand(len(positive), -1, -1),
            torch.cat([zeros if is_positive else image.values for is_positive in positive]),
        )

    def _mask(self, prompt: ImagePrompt, mask: torch.Tensor, locations: int) -> torch.Tensor:
        """Return the mask of an image prompt (locations, 1)."""
        key = (id(prompt), locations)
        if key not in self._masks:
            level = _at_level(mask, self._size, locations).reshape(locations, 1)
            self._masks[key] = level.to(device=self._device, dtype=self._dtype)
        return self._masks[key]

    def _score(self, conditioning: TextConditioning, locations: int) -> torch.Tensor:
        """Return the bias of the attention scores, (batch, locations, tokens)."""
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
    """Return a mask at the UNet level with this many locations: resized to the latents, then halved by max pooling.

    Raises ValueError if no level matches.
    """
    level = functional.interpolate((mask.float() > _HALF).float()[None, None].cpu(), size=size, mode="nearest")
    while level.shape[-1] * level.shape[-2] != locations:
        if level.shape[-1] * level.shape[-2] < locations or level.shape[-2:] == (1, 1):
            raise ValueError(f"no level of latents of {size[1]} x {size[0]} has {locations} locations")
        level = functional.max_pool2d(level, kernel_size=2, stride=2, ceil_mode=True)
    return level.reshape(locations)


class _Attend:
    """Attention of one layer's queries to given keys and values (batch, tokens, width)."""

    def __init__(self, query: torch.Tensor, heads: int) -> None:
        self._heads = heads
        self.width = query.shape[-1]
        self._query = self._split(query)

    def __call__(self, keys: torch.Tensor, values: torch.Tensor, score: torch.Tensor | None = None) -> torch.Tensor:
        score = None if score is None else score[:, None]
        attended = functional.scaled_dot_product_attention(self._query, self._split(keys), self._split(values), score)
        return attended.transpose(1, 2).flatten(2)

    def _split(self, values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(-1, (self._heads, -1)).transpose(1, 2)


class _Processor:
    """Attention processor that diffusers calls for one cross-attention layer."""

    def __init__(self, attention: CrossAttention, layer: str, number: int) -> None:
        self._attention, self._layer, self._number = attention, layer, number

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the layer's output (batch, locations, width)."""
        locations = hidden_states.shape[1]
        attend = _Attend(attn.to_q(hidden_states), attn.heads)
        # 1. the text
        keys, values = attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states)
        result = attend(keys, values, self._attention.text_score(locations, attention_mask))
        # 2. images
        for attended in self._attention.attend_images(attend, self._layer, self._number, locations):
            result = result + attended
        projected: torch.Tensor = attn.to_out[1](attn.to_out[0](result))
        return projected


@contextmanager
def cross_attention(unet: Any, attention: CrossAttention | None) -> Iterator[None]:
    """Route a UNet's cross-attention through `attention`, if given."""
    if attention is None:
        yield
        return
    before = unet.attn_processors
    unet.set_attn_processor(
        {
            name: _Processor(attention, name, number) if ".attn2." in name else processor
            for number, (name, processor) in enumerate(before.items())
        }
    )
    try:
        yield
    finally:
        unet.set_attn_processor(before)
