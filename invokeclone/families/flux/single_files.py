"""The layout of FLUX.1's single files: Black Forest Labs' tensor names, diffusers' names, sizes, and bundled parts."""

from typing import Any

from invokeclone.components.flux.single_files import OriginalNames, count_blocks
from invokeclone.engine.quantized.packed import Weights

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
NAMES = OriginalNames(OUTER_LAYERS, DOUBLE_BLOCK_LAYERS, SINGLE_BLOCK_LAYERS)


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
        "num_layers": count_blocks(weights, "transformer_blocks"),
        "num_single_layers": count_blocks(weights, "single_transformer_blocks"),
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
