"""The layout of Z-Image's single files: the authors' tensor names, diffusers' names, and sizes."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from invokeclone.engine.quantized.packed import PackedTensor, Weights

PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.")
"""Prefixes of the transformer's tensors in files of other programs; the first that occurs counts."""
_PATCH = "2-1"
OUTER_LAYERS = {
    "x_embedder": f"all_x_embedder.{_PATCH}",
    "final_layer.linear": f"all_final_layer.{_PATCH}.linear",
    "final_layer.adaLN_modulation.1": f"all_final_layer.{_PATCH}.adaLN_modulation.1",
}
BLOCK_LAYERS = {
    "attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention.out": ("attention.to_out.0",),
    "attention.q_norm": ("attention.norm_q",),
    "attention.k_norm": ("attention.norm_k",),
}
"""Layers of blocks whose names differ, and the modules that they consist of, by rows."""
_BLOCK = re.compile(r"((?:layers|noise_refiner|context_refiner)\.\d+)\.(.+)")
_PAD_TOKENS = ("x_pad_token", "cap_pad_token")
_UNUSED = "norm_final."
_X_EMBEDDER = f"all_x_embedder.{_PATCH}.weight"
_TOKEN_VALUES = 4
"""Latents per token and channel."""


def without_prefix(tensors: Weights) -> dict[str, torch.Tensor | PackedTensor]:
    """Return the transformer's tensors, whose names have none of the PREFIXES any more."""
    prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in tensors)), "")
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def to_diffusers_names(tensors: Weights) -> dict[str, torch.Tensor | PackedTensor]:
    """Return tensors with diffusers' names; names of diffusers stay. Tokens for padding that files lack are zeros."""
    renamed: dict[str, torch.Tensor | PackedTensor] = {}
    for name, value in tensors.items():
        layer, _, kind = name.rpartition(".")
        modules = module_names(layer)
        if name.startswith(_UNUSED):
            continue
        if name in _PAD_TOKENS:
            renamed[name] = value.decode(torch.float32) if isinstance(value, PackedTensor) else value
        elif len(modules) > 1:
            renamed |= {
                f"{module}.{kind}": part for module, part in zip(modules, value.chunk(len(modules)), strict=True)
            }
        else:
            renamed[f"{modules[0]}.{kind}" if modules else name] = value
    width = renamed[_X_EMBEDDER].shape[0]
    for name in _PAD_TOKENS:
        token = renamed.get(name)
        renamed[name] = token.reshape(1, width) if isinstance(token, torch.Tensor) else torch.zeros(1, width)
    return renamed


def module_names(layer: str) -> tuple[str, ...]:
    """Return diffusers' modules that a layer with one of the authors' names consists of, by rows; empty for others."""
    if layer in OUTER_LAYERS:
        return (OUTER_LAYERS[layer],)
    if match := _BLOCK.fullmatch(layer):
        return tuple(f"{match[1]}.{module}" for module in BLOCK_LAYERS.get(match[2], ()))
    return ()


def transformer_config(weights: Weights) -> dict[str, Any]:
    """Return the configuration of the transformer with these tensors (diffusers' names).

    Raises KeyError for missing tensors.
    """
    width, values = weights[_X_EMBEDDER].shape
    head = weights["layers.0.attention.norm_q.weight"].shape[0]
    side = 2 * (3 * head // 16)
    return {
        "in_channels": values // _TOKEN_VALUES,
        "dim": width,
        "n_layers": count_blocks(weights, "layers"),
        "n_refiner_layers": count_blocks(weights, "noise_refiner"),
        "n_heads": width // head,
        "n_kv_heads": width // head,
        "cap_feat_dim": weights["cap_embedder.1.weight"].shape[1],
        "axes_dims": [head - 2 * side, side, side],
    }


def count_blocks(weights: Mapping[str, Any], blocks: str) -> int:
    """Return the number of blocks with this name."""
    pattern = re.compile(rf"{blocks}\.(\d+)\.")
    return len({match[1] for name in weights if (match := pattern.match(name))})
