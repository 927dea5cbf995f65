"""The layout of FLUX.1's single files: Black Forest Labs' tensor names, diffusers' names, sizes, and bundled parts."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from invokeclone.engine.quantized.packed import PackedTensor, Weights

PREFIXES = ("model.diffusion_model.", "diffusion_model.")
"""Prefixes of the transformer's tensors in files of other programs; the first that occurs counts."""
OUTER_LAYERS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
DOUBLE_BLOCK_LAYERS = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
SINGLE_BLOCK_LAYERS = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
    "modulation.lin": ("norm.linear",),
}
_BLOCK = re.compile(r"(?P<kind>double|single)_blocks\.(?P<number>\d+)\.(?P<layer>.+)")
_TARGETS = {
    "double": ("transformer_blocks", DOUBLE_BLOCK_LAYERS),
    "single": ("single_transformer_blocks", SINGLE_BLOCK_LAYERS),
}
_FIRST_LAYER = "double_blocks.0.img_attn.qkv.weight"
"""A tensor that marks files with Black Forest Labs' names."""


def module_names(layer: str) -> tuple[str, ...]:
    """Return diffusers' modules that a layer of Black Forest Labs' names consists of, by rows; empty if unknown."""
    if match := _BLOCK.fullmatch(layer):
        blocks, names = _TARGETS[match["kind"]]
        return tuple(f"{blocks}.{match['number']}.{name}" for name in names.get(match["layer"], ()))
    return (OUTER_LAYERS[layer],) if layer in OUTER_LAYERS else ()


def without_prefix(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the transformer's tensors of a file without their prefix; of a bundle, only those."""
    prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in names)), "")
    return {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}


def to_diffusers_names(weights: Weights) -> dict[str, torch.Tensor | PackedTensor]:
    """Return a transformer's tensors with diffusers' names; unknown names stay. Tensors are views, not copies."""
    if _FIRST_LAYER not in weights:
        return dict(weights)
    weights = {**weights, "img_in.weight": _input_layer(weights)}
    hidden = weights["img_in.weight"].shape[0]
    renamed: dict[str, torch.Tensor | PackedTensor] = {}
    for name, tensor in weights.items():
        renamed.update(_rename(name, tensor, hidden))
    return renamed


def _input_layer(weights: Weights) -> torch.Tensor | PackedTensor:
    """Return the weight of the layer of the image, which some GGUF files have in another shape, as (outputs, inputs)."""
    weight, bias = weights["img_in.weight"], weights.get("img_in.bias")
    if bias is None or isinstance(weight, PackedTensor) or weight.shape[0] == bias.shape[0]:
        return weight
    return weight.reshape(bias.shape[0], -1)


def _rename(
    name: str, tensor: torch.Tensor | PackedTensor, hidden: int
) -> Iterator[tuple[str, torch.Tensor | PackedTensor]]:
    layer, _, kind = name.rpartition(".")
    modules = module_names(layer)
    kind = "weight" if kind == "scale" else kind
    match len(modules):
        case 0:
            yield name, tensor
        case 1:
            yield f"{modules[0]}.{kind}", _swap_halves(tensor) if modules[0] == "norm_out.linear" else tensor
        case count:
            rows = [hidden] * 3 + [tensor.shape[0] - 3 * hidden] * (count - 3)
            yield from ((f"{m}.{kind}", part) for m, part in zip(modules, tensor.split(rows), strict=True))


def _swap_halves(tensor: torch.Tensor | PackedTensor) -> torch.Tensor | PackedTensor:
    """Return scale and shift in diffusers' order."""
    first, second = tensor.chunk(2)
    return second.join([first]) if isinstance(second, PackedTensor) else torch.cat([second, first])


def transformer_config(weights: Weights) -> dict[str, Any]:
    """Return the configuration of the transformer with these tensors (diffusers' names).

    Raises KeyError for missing tensors.
    """
    return {**network_config(weights), "out_channels": weights["proj_out.weight"].shape[0]}


def network_config(weights: Weights) -> dict[str, Any]:
    """Return the part of the configuration that transformers and ControlNets share, as `transformer_config`."""
    hidden, channels = weights["x_embedder.weight"].shape
    head = weights["transformer_blocks.0.attn.norm_q.weight"].shape[0]
    return {
        "in_channels": channels,
        "num_layers": _count(weights, "transformer_blocks"),
        "num_single_layers": _count(weights, "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": hidden // head,
        "joint_attention_dim": weights["context_embedder.weight"].shape[1],
        "pooled_projection_dim": weights["time_text_embed.text_embedder.linear_1.weight"].shape[1],
        "guidance_embeds": "time_text_embed.guidance_embedder.linear_1.weight" in weights,
        "axes_dims_rope": _axes(head),
    }


def _axes(head: int) -> tuple[int, int, int]:
    """Return the widths of the rotary axes, which are even, in the published proportions: 16, 56, 56 of 128."""
    side = 2 * (7 * head // 32)
    return (head - 2 * side, side, side)


def _count(weights: Mapping[str, Any], blocks: str) -> int:
    pattern = re.compile(rf"{blocks}\.(\d+)\.")
    return len({match[1] for name in weights if (match := pattern.match(name))})
