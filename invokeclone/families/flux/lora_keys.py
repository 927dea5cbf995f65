"""Naming of parts and layers in LoRA files for FLUX.1: Black Forest Labs' and diffusers' names, and those of trainers.

The transformer has diffusers' modules. Layers with Black Forest Labs' names may be several of them.
"""

import re
from collections.abc import Mapping

from invokeclone.engine.lora.keys import KeyLayout
from invokeclone.engine.lora.stacks import Stack
from invokeclone.families.flux import single_files

_SWAPPED = ("norm_out_linear",)
"""Modules whose halves of rows, scale and shift, are in the other order in Black Forest Labs' layer."""
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
_BLOCK = re.compile(r"(?P<kind>double|single)_blocks_(?P<number>\d+)_(?P<layer>.+)")


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _by_flat_name(layers: Mapping[str, tuple[str, ...]], aliases: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the flat modules of each layer, also by its aliases, and of each part of a stack by its number."""
    named = {_flat(name): tuple(map(_flat, modules)) for name, modules in layers.items()}
    named |= {alias: named[name] for alias, name in aliases.items()}
    numbered = {
        f"{name}_{number}": (module,)
        for name, modules in named.items()
        if len(modules) > 1
        for number, module in enumerate(modules)
    }
    return named | numbered


_DOUBLE = _by_flat_name(single_files.DOUBLE_BLOCK_LAYERS, _DOUBLE_ALIASES)
_SINGLE = _by_flat_name(single_files.SINGLE_BLOCK_LAYERS, _SINGLE_ALIASES)
_SINGLE[_QKV_OF_SINGLE] = _SINGLE["linear1"][:3]
_OUTER = {_flat(name): (_flat(module),) for name, module in single_files.OUTER_LAYERS.items()}
_BLOCKS = {"double": ("transformer_blocks", _DOUBLE), "single": ("single_transformer_blocks", _SINGLE)}


def _modules(layer: str) -> tuple[str, ...]:
    """Return the flat modules of a layer with one of Black Forest Labs' names; empty for other names."""
    if match := _BLOCK.fullmatch(layer):
        blocks, layers = _BLOCKS[match["kind"]]
        name = match["layer"].removesuffix(
            "_scale"
        )  # the weight of a norm, where files name the tensor and not the layer
        return tuple(f"{blocks}_{match['number']}_{module}" for module in layers.get(name, ()))
    return _OUTER.get(layer, ())


def diffusers_name(layer: str) -> str:
    """Return diffusers' flat name of a layer that is one of its modules; other names are returned unchanged."""
    modules = _modules(layer)
    return modules[0] if len(modules) == 1 and modules[0] not in _SWAPPED else layer


def stack_of(layer: str) -> Stack | None:
    """Return the modules of a layer with one of Black Forest Labs' names that is not just one module of diffusers."""
    modules = _modules(layer)
    swapped = modules[:1] == _SWAPPED
    return Stack(modules, swapped=swapped) if len(modules) > 1 or swapped else None


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
    rename=diffusers_name,
    stack=stack_of,
)
"""The naming schemes of kohya, diffusers, PEFT, OneTrainer, AI-Toolkit, XLabs and the Open Model Initiative."""
