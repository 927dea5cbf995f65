"""Naming of parts and layers in LoRA files for Z-Image: the authors' and diffusers' names, and those of trainers."""

import re

from invokeclone.engine.lora.keys import KeyLayout
from invokeclone.engine.lora.stacks import Stack
from invokeclone.families.z_image.single_files import BLOCK_LAYERS, OUTER_LAYERS

TRANSFORMER, QWEN3 = "transformer", "qwen3"
"""The parts of a file."""
_BLOCK = re.compile(r"(?P<block>(?:layers|noise_refiner|context_refiner)_\d+)_(?P<layer>.+)")


def _flat(name: str) -> str:
    return name.replace(".", "_")


_BLOCK_LAYERS = {_flat(name): tuple(map(_flat, modules)) for name, modules in BLOCK_LAYERS.items()}
_OUTER_LAYERS = {_flat(name): _flat(module) for name, module in OUTER_LAYERS.items()}


def _modules(layer: str) -> tuple[str, ...]:
    """Return the flat modules of a layer with one of the authors' names; empty for other names."""
    if match := _BLOCK.fullmatch(layer):
        return tuple(f"{match['block']}_{module}" for module in _BLOCK_LAYERS.get(match["layer"], ()))
    return (_OUTER_LAYERS[layer],) if layer in _OUTER_LAYERS else ()


def diffusers_name(layer: str) -> str:
    """Return diffusers' flat name of a layer that is one of its modules; other names are returned unchanged."""
    modules = _modules(layer)
    return modules[0] if len(modules) == 1 else layer


def stack_of(layer: str) -> Stack | None:
    """Return the modules of a layer that is several modules of diffusers."""
    modules = _modules(layer)
    return Stack(modules) if len(modules) > 1 else None


LAYOUT = KeyLayout(
    prefixes=(
        ("transformer.diffusion_model.", TRANSFORMER),
        ("model.diffusion_model.", TRANSFORMER),
        ("diffusion_model.", TRANSFORMER),
        ("transformer.", TRANSFORMER),
        ("lora_unet__", TRANSFORMER),
        ("lora_unet_", TRANSFORMER),
        ("lora_transformer_", TRANSFORMER),
        ("lycoris_", TRANSFORMER),
        ("text_encoder.model.", QWEN3),
        ("text_encoder.", QWEN3),
        ("lora_te_model_", QWEN3),
        ("lora_te_", QWEN3),
        ("lora_te1_model_", QWEN3),
        ("lora_te1_", QWEN3),
    ),
    default_part=TRANSFORMER,
    rename=diffusers_name,
    stack=stack_of,
)
"""The naming schemes of kohya, diffusers, PEFT, AI-Toolkit and ComfyUI."""
