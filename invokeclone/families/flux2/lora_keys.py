"""Naming of parts and layers in LoRA files for FLUX.2: Black Forest Labs' and diffusers' names, those of kohya and PEFT."""

from invokeclone.components.flux.lora_names import FlatNames
from invokeclone.engine.lora.keys import KeyLayout
from invokeclone.families.flux2 import single_files

TRANSFORMER, TEXT_ENCODER = "transformer", "text_encoder"
_NAMES = FlatNames.of(single_files.NAMES)

LAYOUT = KeyLayout(
    prefixes=(
        ("lora_unet_", TRANSFORMER),
        ("lora_transformer_", TRANSFORMER),
        ("lycoris_", TRANSFORMER),
        ("diffusion_model.", TRANSFORMER),
        ("transformer.", TRANSFORMER),
        ("text_encoder.model.language_model.", TEXT_ENCODER),
        ("text_encoder.language_model.model.", TEXT_ENCODER),
        ("text_encoder.language_model.", TEXT_ENCODER),
        ("text_encoder.model.", TEXT_ENCODER),
        ("text_encoder.", TEXT_ENCODER),
        ("lora_te_model_language_model_", TEXT_ENCODER),
        ("lora_te_language_model_model_", TEXT_ENCODER),
        ("lora_te_language_model_", TEXT_ENCODER),
        ("lora_te_model_", TEXT_ENCODER),
        ("lora_te_", TEXT_ENCODER),
    ),
    default_part=TRANSFORMER,
    rename=_NAMES.diffusers_name,
    stack=_NAMES.stack_of,
)
