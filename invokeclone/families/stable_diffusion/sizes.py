"""Configuration of a UNet or ControlNet from the sizes of its tensors, which have diffusers' names.

Values that tensors do not show come from the published configuration of the base: channels per attention head and norm
group, and the embedding of timesteps.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

Weights = dict[str, torch.Tensor]

_HEAD_WIDTH = 64
"""Channels per attention head in Stable Diffusion 2 and XL."""
_LAYERS = 2
"""Layers per level, in networks of a single level."""


def layers_per_block(original: Mapping[str, torch.Tensor]) -> int:
    """Return the layers per level of a network whose tensors have their original names, without a prefix."""
    downsampler = next((n for n in range(1, 100) if f"input_blocks.{n}.0.op.weight" in original), _LAYERS + 1)
    return downsampler - 1


def network_config(weights: Mapping[str, torch.Tensor], published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the common configuration of UNet and ControlNet encoders. Raises KeyError for missing tensors."""
    blocks = range(count(weights, "down_blocks"))
    channels = [weights[f"down_blocks.{block}.resnets.0.conv1.weight"].shape[0] for block in blocks]
    depths = [_depth(weights, f"down_blocks.{block}") for block in blocks]
    mid_depth = _depth(weights, "mid_block")
    attention = next((v for n, v in weights.items() if n.endswith("attn2.to_k.weight")), None)
    projection = next((v for n, v in weights.items() if n.endswith("attentions.0.proj_in.weight")), None)
    heads = published["attention_head_dim"]
    config = {
        **published,
        "in_channels": weights["conv_in.weight"].shape[1],
        "block_out_channels": channels,
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if mid_depth else "UNetMidBlock2D",
        "layers_per_block": count(weights, "down_blocks.0.resnets"),
        "transformer_layers_per_block": [*(depth or 1 for depth in depths[:-1]), depths[-1] or mid_depth or 1],
        "attention_head_dim": [max(1, c // _HEAD_WIDTH) for c in channels] if isinstance(heads, list) else heads,
        "use_linear_projection": projection is not None and projection.ndim == 2,  # noqa: PLR2004 - else a convolution
        "norm_num_groups": _groups(channels, published["norm_num_groups"]),
    }
    if attention is not None:
        config["cross_attention_dim"] = attention.shape[1]
    if (size := weights.get("add_embedding.linear_1.weight")) is not None:
        config["projection_class_embeddings_input_dim"] = size.shape[1]
    return config


def unet_config(weights: Mapping[str, torch.Tensor], published: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the UNet with these tensors. Raises KeyError for missing tensors."""
    levels = range(count(weights, "up_blocks"))
    depths = [_depth(weights, f"up_blocks.{level}") for level in levels]
    return {
        **network_config(weights, published),
        "out_channels": weights["conv_out.weight"].shape[0],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in depths],
    }


def count(weights: Mapping[str, torch.Tensor], prefix: str) -> int:
    """Return the number of numbered modules directly below `prefix`."""
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    return len({match[1] for name in weights if (match := pattern.match(name))})


def _depth(weights: Mapping[str, torch.Tensor], block: str) -> int:
    """Return the transformer layers of a block's first attention, 0 for a block without attention."""
    return count(weights, f"{block}.attentions.0.transformer_blocks")


def _groups(channels: list[int], published: int) -> int:
    """Return the groups of the norms: the published number, or the largest common divisor with the channels."""
    return math.gcd(published, *channels)
