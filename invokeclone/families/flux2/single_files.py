"""The layout of FLUX.2's single files: Black Forest Labs' tensor names, sizes."""

from typing import Any

from invokeclone.components.flux.single_files import OriginalNames, count_blocks
from invokeclone.engine.quantized.packed import Weights

NAMES = OriginalNames(
    outer={
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
        "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
        "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
        "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
        "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
        "single_stream_modulation.lin": "single_stream_modulation.linear",
        "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
    },
    double={
        "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "img_attn.norm.query_norm": ("attn.norm_q",),
        "img_attn.norm.key_norm": ("attn.norm_k",),
        "txt_attn.norm.query_norm": ("attn.norm_added_q",),
        "txt_attn.norm.key_norm": ("attn.norm_added_k",),
        "img_attn.proj": ("attn.to_out.0",),
        "txt_attn.proj": ("attn.to_add_out",),
        "img_mlp.0": ("ff.linear_in",),
        "img_mlp.2": ("ff.linear_out",),
        "txt_mlp.0": ("ff_context.linear_in",),
        "txt_mlp.2": ("ff_context.linear_out",),
    },
    single={
        "linear1": ("attn.to_qkv_mlp_proj",),
        "linear2": ("attn.to_out",),
        "norm.query_norm": ("attn.norm_q",),
        "norm.key_norm": ("attn.norm_k",),
    },
)


def transformer_config(weights: Weights) -> dict[str, Any]:
    """Return the configuration of the transformer with these tensors (diffusers' names).

    Raises KeyError for missing tensors.
    """
    hidden, channels = weights["x_embedder.weight"].shape
    head = weights["transformer_blocks.0.attn.norm_q.weight"].shape[0]
    return {
        "in_channels": channels,
        "out_channels": weights["proj_out.weight"].shape[0],
        "num_layers": count_blocks(weights, "transformer_blocks"),
        "num_single_layers": count_blocks(weights, "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": hidden // head,
        "joint_attention_dim": weights["context_embedder.weight"].shape[1],
        "timestep_guidance_channels": weights["time_guidance_embed.timestep_embedder.linear_1.weight"].shape[1],
        "mlp_ratio": weights["transformer_blocks.0.ff.linear_out.weight"].shape[1] / hidden,
        "guidance_embeds": "time_guidance_embed.guidance_embedder.linear_1.weight" in weights,
        "axes_dims_rope": (head // 4,) * 4,
    }
