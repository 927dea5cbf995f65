"""Naming of parts and layers in LoRA files for Stable Diffusion."""

import re

from invokeclone.engine.lora.keys import KeyLayout

_BLOCKS_PER_LEVEL = 3
"""Two layers and a downsampler per level; three layers per level on the way up."""
_RESNET = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
_MIDDLE = {"0": "mid_block_resnets_0", "1": "mid_block_attentions_0", "2": "mid_block_resnets_1"}
_SINGLE = {
    "input_blocks_0_0": "conv_in",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
}
_BLOCK = re.compile(r"(?P<side>input|output)_blocks_(?P<block>\d+)_(?P<module>\d)_(?P<rest>.+)")
_MIDDLE_BLOCK = re.compile(r"middle_block_(?P<module>[012])_(?P<rest>.+)")


def diffusers_name(layer: str) -> str:
    """Return diffusers' flat name of a UNet layer with an original name; other names are returned unchanged."""
    if layer in _SINGLE:
        return _SINGLE[layer]
    if match := _MIDDLE_BLOCK.fullmatch(layer):
        return f"{_MIDDLE[match['module']]}_{_resnet_layer(match['rest'])}"
    if match := _BLOCK.fullmatch(layer):
        block = int(match["block"])
        if match["side"] == "input":
            return _input_block(*divmod(block - 1, _BLOCKS_PER_LEVEL), match["module"], match["rest"])
        return _output_block(*divmod(block, _BLOCKS_PER_LEVEL), match["module"], match["rest"])
    return layer


def _input_block(level: int, index: int, module: str, rest: str) -> str:
    if rest == "op":
        return f"down_blocks_{level}_downsamplers_0_conv"
    kind = "resnets" if module == "0" else "attentions"
    return f"down_blocks_{level}_{kind}_{index}_{_resnet_layer(rest)}"


def _output_block(level: int, index: int, module: str, rest: str) -> str:
    if rest == "conv":
        return f"up_blocks_{level}_upsamplers_0_conv"
    kind = "resnets" if module == "0" else "attentions"
    return f"up_blocks_{level}_{kind}_{index}_{_resnet_layer(rest)}"


def _resnet_layer(rest: str) -> str:
    """Return a layer's name within its resnet; attention layers keep their names."""
    return _RESNET.get(rest, rest)


LAYOUT = KeyLayout(
    prefixes=(
        ("lora_unet_", "unet"),
        ("unet.", "unet"),
        ("lora_te2_", "clip2"),
        ("text_encoder_2.", "clip2"),
        ("clip_g.", "clip2"),
        ("lora_te1_", "clip"),
        ("lora_te_", "clip"),
        ("text_encoder.", "clip"),
        ("clip_l.", "clip"),
    ),
    default_part="unet",
    rename=diffusers_name,
)
"""The naming schemes of kohya, diffusers, PEFT and the Open Model Initiative."""
