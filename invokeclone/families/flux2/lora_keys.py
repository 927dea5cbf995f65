"""Naming of parts and layers in LoRA files for FLUX.2: Black Forest Labs' and diffusers' names, those of kohya and PEFT."""

from invokeclone.components.flux.lora_names import FlatNames
from invokeclone.engine.lora.keys import KeyLayout
from invokeclone.families.flux2 import single_files

TRANSFORMER, QWEN3 = "transformer", "qwen3"
_NAMES = FlatNames.of(single_files.NAMES)

LAYOUT = KeyLayout(
    prefixes=(
        ("lora_unet_", TRANSFORMER),
        ("lora_transformer_", TRANSFORMER),
        ("lycoris_", TRANSFORMER),
        ("diffusion_model.", TRANSFORMER),
        ("transformer.", TRANSFORMER),
        ("text_encoder.model.", QWEN3),
        ("text_encoder.", QWEN3),
        ("lora_te_model_", QWEN3),
        ("lora_te_", QWEN3),
    ),
    default_part=TRANSFORMER,
    rename=_NAMES.diffusers_name,
    stack=_NAMES.stack_of,
)
