"""Naming of parts and layers in LoRA files for FLUX.1: Black Forest Labs' and diffusers' names, and those of trainers.

The transformer has diffusers' modules. Layers with Black Forest Labs' names may be several of them.
"""

from dataclasses import replace

from invokeclone.components.flux.lora_names import FlatNames
from invokeclone.engine.lora.keys import KeyLayout
from invokeclone.families.flux import single_files

_DOUBLE_ALIASES = {
    "processor_qkv_lora1": "img_attn_qkv",
    "processor_qkv_lora2": "txt_attn_qkv",
    "processor_proj_lora1": "img_attn_proj",
    "processor_proj_lora2": "txt_attn_proj",
}
"""XLabs' names: a layer of the image's stream ends in 1, of the text's in 2."""
_SINGLE_ALIASES = {"processor_proj_lora": "linear2"}
_QKV_OF_SINGLE = "processor_qkv_lora"
"""XLabs' name of the first three modules of linear1."""
_NAMES = FlatNames.of(single_files.NAMES, _DOUBLE_ALIASES, _SINGLE_ALIASES)
_SINGLE = {**_NAMES.single, _QKV_OF_SINGLE: _NAMES.single["linear1"][:3]}
NAMES = replace(_NAMES, single=_SINGLE)


LAYOUT = KeyLayout(
    prefixes=(
        ("lora_unet_final_layer_linear", ""),  # kohya's; without effect in InvokeAI
        ("lora_unet_", "transformer"),
        ("lora_transformer_", "transformer"),
        ("lycoris_", "transformer"),
        ("diffusion_model.", "transformer"),
        ("transformer.", "transformer"),
        ("lora_te1_", "clip"),
        ("lora_te_", "clip"),
        ("text_encoder.", "clip"),
        ("text_encoders.clip_l.transformer.", "clip"),
        ("clip_l.transformer.", "clip"),
        ("clip_l.", "clip"),
        ("lora_te2_", "t5"),
        ("lora_te3_", "t5"),
        ("text_encoder_2.", "t5"),
        ("text_encoders.t5xxl.transformer.", "t5"),
        ("t5xxl.transformer.", "t5"),
        ("t5xxl.", "t5"),
        ("t5.", "t5"),
    ),
    default_part="transformer",
    rename=NAMES.diffusers_name,
    stack=NAMES.stack_of,
)
"""The naming schemes of kohya, diffusers, PEFT, OneTrainer, AI-Toolkit, XLabs and the Open Model Initiative."""
