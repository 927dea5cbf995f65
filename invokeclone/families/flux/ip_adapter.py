"""IP-Adapters of FLUX.1 (XLabs): the image tokens of double blocks also attend to an image."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from invokeclone.components.clip.vision import image_embeds, pixels
from invokeclone.engine.controls import is_active, weight_at
from invokeclone.engine.loading.files import read_tensors
from invokeclone.families.flux.denoiser import FluxCall

_LAYER = re.compile(r"double_blocks\.(\d+)\.processor\.ip_adapter_double_stream_(k|v)_proj\.(weight|bias)")
_PROJECTION = "ip_adapter_proj_model."


class FluxIPAdapter(nn.Module):  # type: ignore[misc]
    """The projection of image embeddings to tokens, and the keys and values of the tokens in each double block."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the tensors of a file. Raises KeyError for missing ones."""
        super().__init__()
        weight = tensors[f"{_PROJECTION}proj.weight"]
        self.blocks = sorted({int(match[1]) for name in tensors if (match := _LAYER.fullmatch(name))})
        if not self.blocks:
            raise KeyError("double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight")
        self.width = tensors[_layer_name(self.blocks[0], "k", "weight")].shape[1]
        self.proj = nn.Linear(weight.shape[1], weight.shape[0])
        self.norm = nn.LayerNorm(self.width)
        self.keys, self.values = (nn.ModuleList(_linear(tensors, n, kind) for n in self.blocks) for kind in "kv")
        for name in ("proj", "norm"):
            for kind in ("weight", "bias"):
                getattr(getattr(self, name), kind).data = tensors[f"{_PROJECTION}{name}.{kind}"]

    def tokens(self, embeds: torch.Tensor) -> torch.Tensor:
        """Return the tokens (1, count, width) of image embeddings (1, width of the image encoder)."""
        projected: torch.Tensor = self.norm(self.proj(embeds).reshape(len(embeds), -1, self.width))
        return projected


def _layer_name(block: int, side: str, kind: str) -> str:
    return f"double_blocks.{block}.processor.ip_adapter_double_stream_{side}_proj.{kind}"


def _linear(tensors: Mapping[str, torch.Tensor], block: int, side: str) -> nn.Linear:
    weight, bias = (tensors[_layer_name(block, side, kind)] for kind in ("weight", "bias"))
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def load_ip_adapter(path: Path, dtype: torch.dtype) -> FluxIPAdapter:
    """Return the IP-Adapter of a file. Raises ValueError for missing tensors."""
    try:
        adapter = FluxIPAdapter({name: value.to(dtype) for name, value in read_tensors(path).items()})
    except KeyError as error:
        raise ValueError(
            f"{path.name} holds an incomplete IP-Adapter ({error.args[0]} is missing): download it again"
        ) from error
    adapter.eval()
    return adapter


KeysValues = Mapping[int, tuple[torch.Tensor, torch.Tensor]]
"""Keys and values, each (1, tokens, width of the transformer), by number of the double block."""


@dataclass
class FluxImagePrompt:
    """An encoded image that a run attends to."""

    positive: KeysValues
    negative: KeysValues
    """Those of a black image, for the side of the negative prompt."""
    weight: float | Sequence[float] = 1.0
    begin: float = 0.0
    end: float = 1.0

    def term(self, block: int, query: torch.Tensor, call: FluxCall) -> torch.Tensor | None:
        """Return the weighted attention of the image tokens to the image, without a gate."""
        weight = weight_at(self.weight, call.index)
        side = self.positive if call.conditioning.positive else self.negative
        if block not in side or weight == 0.0 or not is_active(call.index, call.count, self.begin, self.end):
            return None
        heads = query.transpose(1, 2)
        keys, values = (
            part.to(query).expand(len(query), -1, -1).unflatten(-1, (heads.shape[1], -1)).transpose(1, 2)
            for part in side[block]
        )
        attended = functional.scaled_dot_product_attention(heads, keys, values)
        return weight * attended.transpose(1, 2).flatten(2)


def encode(
    adapter: FluxIPAdapter,
    encoder: Any,
    image: Image.Image,
    device: torch.device,
    encoder_device: torch.device | None = None,
) -> tuple[KeysValues, KeysValues]:
    """Return the keys and values of an image, and those of a black one.

    The adapter computes on `device`, the encoder too unless it has another. Raises ValueError for another image encoder.
    """
    width = encoder.config.projection_dim
    if width != adapter.proj.in_features:
        raise ValueError(
            f"this IP-Adapter needs image embeddings of width {adapter.proj.in_features}, but the CLIP vision model gives "
            f"{width}: install openai/clip-vit-large-patch14"
        )
    with torch.inference_mode():
        batch = pixels([image, Image.new("RGB", image.size)]).to(encoder_device or device)
        dtype = adapter.proj.weight.dtype
        sides = [adapter.tokens(embeds[None].to(device, dtype)) for embeds in image_embeds(encoder, batch)]
        first, second = (_keys_values(adapter, tokens) for tokens in sides)
    return first, second


def _keys_values(adapter: FluxIPAdapter, tokens: torch.Tensor) -> KeysValues:
    pairs = zip(adapter.blocks, adapter.keys, adapter.values, strict=True)
    return {number: (keys(tokens), values(tokens)) for number, keys, values in pairs}
