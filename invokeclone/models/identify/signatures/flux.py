"""Signatures of FLUX.1 and FLUX.2 files, and how to distinguish the two."""

import math
import re
from collections.abc import Mapping

from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.files.tensors import Tensor
from invokeclone.models.identify.rules import require
from invokeclone.models.identify.signatures import forms, loras
from invokeclone.models.identify.signatures.loras import input_of, names_match

CONTEXT_WIDTHS = (7680, 12288, 15360)
_MARK = "double_blocks.0.img_attn.norm.key_norm.scale"
_OTHER_MODULES = ("distilled_guidance_layer.", "input_hint_block.", "controlnet_", "pos_embed_input.")
"""Modules of Chroma and of ControlNets, which have the blocks of FLUX too."""
_FLUX1_MODULES = ("vector_in.", "double_blocks.0.img_mod.")
_FLUX2_MODULES = ("double_stream_modulation_", "single_stream_modulation.")
_FLUX1_CONTEXT, _FLUX2_LATENTS, _HIDDEN = 4096, 128, 3072
_FLUX2_HIDDEN = (4096, 6144)

_blocks = names_match(r"(?:double|single)_blocks[._]\d")
_diffusers_blocks = names_match(
    r"single_transformer_blocks[._]\d|transformer_blocks[._]\d+[._](?:ff_context|norm1_context)"
)
_double_attention = names_match(r"transformer_blocks[._]\d+[._]attn[._](?:add_[qkv]_proj|to_add_out)")
_has_flux2_names = names_match(
    r".*(?:to_qkv_mlp_proj|ff(?:_context)?[._]linear_(?:in|out)|stream_modulation|time_guidance_embed"
    r"|single_transformer_blocks[._]\d+[._]attn[._]to_out)"
)
_has_flux1_names = names_match(
    r".*(?:(?:img|txt)_mod[._]|single_blocks[._]\d+[._]modulation|proj_mlp|norm1?(?:_context)?[._]linear|vector_in"
    r"|time_text_embed|ff(?:_context)?[._]net|single_transformer_blocks[._]\d+[._]proj_out"
    r"|processor[._](?:qkv|proj)_lora)"
)
_OF_HIDDEN_WIDTH = (
    r"(?:double_blocks[._]\d+[._](?:img|txt)_(?:attn[._]qkv|attn[._]proj|mlp[._]0)|single_blocks[._]\d+[._]linear1"
    r"|transformer_blocks[._]\d+[._]attn[._](?:to_[qkv]\b|to_[qkv]$|add_[qkv]_proj|to_qkv_mlp_proj|to_out[._]0"
    r"|to_add_out)|ff(?:_context)?[._]linear_in)"
)
_FLUX2_RATIOS: tuple[tuple[re.Pattern[str], dict[float, bool]], ...] = (
    (re.compile(r"single_blocks[._]\d+[._]linear1$"), {7: False, 9: True}),
    (re.compile(r"single_blocks[._]\d+[._]linear2$"), {1 / 5: False, 1 / 4: True}),
    (re.compile(r"double_blocks[._]\d+[._](?:img|txt)_mlp[._]0$"), {4: False, 6: True}),
    (re.compile(r"double_blocks[._]\d+[._](?:img|txt)_mlp[._]2$"), {1 / 4: False, 1 / 3: True}),
)
"""Ratios of output to input width of layers that have the same name in both: FLUX.2's MLPs are gated and narrower."""


def require_transformer(model: ModelFiles, *, flux2: bool) -> None:
    """Raise Mismatch unless a file is a transformer of FLUX.2, or of FLUX.1 if not `flux2`."""
    names = model.without_prefixes(*forms.COMFY_PREFIXES)
    require(_MARK in names, "it has no tensors of FLUX")
    require(not any(name.startswith(_OTHER_MODULES) for name in names), "it has tensors that FLUX does not have")
    require(not loras.is_lora(model), "it is a LoRA")
    require(_is_flux2(names) == flux2, f"it is FLUX.{1 if flux2 else 2}")


def _is_flux2(names: Mapping[str, Tensor]) -> bool:
    if any(name.startswith(_FLUX2_MODULES) for name in names):
        return True
    if any(name.startswith(_FLUX1_MODULES) for name in names):
        return False
    context = input_width(names, "txt_in") or input_width(names, "context_embedder")
    return context > _FLUX1_CONTEXT if context else input_width(names, "img_in") == _FLUX2_LATENTS


def input_width(tensors: Mapping[str, Tensor], layer: str) -> int:
    """Return the input width of a linear layer, also of a packed or flattened one with a bias; 0 if it is missing."""
    weight, bias = tensors.get(f"{layer}.weight"), tensors.get(f"{layer}.bias")
    if weight is None or not weight.shape:
        return 0
    rows = bias.shape[0] if bias and bias.shape else 0
    packed = 2 if f"{layer}.weight.absmax" in tensors else 1
    values = math.prod(weight.shape) * packed
    return values // rows if rows and values % rows == 0 else weight.shape[-1]


def context_width(model: ModelFiles) -> int:
    """Return the width of a transformer's text embeddings; 0 if it has no such layer."""
    names = model.without_prefixes(*forms.COMFY_PREFIXES)
    return input_width(names, "txt_in") or input_width(names, "context_embedder")


def latent_width(model: ModelFiles) -> int:
    """Return the number of input channels of a transformer's image tokens; 0 if it has no such layer."""
    return input_width(model.without_prefixes(*forms.COMFY_PREFIXES), "img_in")


def is_flux_lora(model: ModelFiles) -> bool:
    """Return whether a LoRA is for FLUX.1 or FLUX.2, by the layer names of the known trainers."""
    if _blocks(model) or _diffusers_blocks(model):
        return True
    return _double_attention(model) and lora_hidden(model) in _FLUX2_HIDDEN


def lora_context(model: ModelFiles) -> int | None:
    """Return the width of the text embeddings that a LoRA was trained for, if it changes that layer."""
    return input_of(model, r"(?:context_embedder|txt_in)\b")


def lora_hidden(model: ModelFiles) -> int | None:
    """Return the width of the transformer that a LoRA was trained for."""
    return input_of(model, _OF_HIDDEN_WIDTH)


def is_flux2_lora(model: ModelFiles) -> bool | None:
    """Return whether a FLUX LoRA is for FLUX.2; None if its layers have the same names and ratios in both."""
    context = lora_context(model)
    if _has_flux2_names(model) or context in CONTEXT_WIDTHS:
        return True
    if _has_flux1_names(model) or context == _FLUX1_CONTEXT:
        return False
    for layer in loras.layers(model):
        for pattern, answers in _FLUX2_RATIOS:
            ratio = layer.outputs / layer.inputs if layer.inputs else 0
            if ratio in answers and pattern.search(layer.name):
                return answers[ratio]
    return True if lora_hidden(model) in _FLUX2_HIDDEN else None


def base_of_lora(model: ModelFiles) -> BaseModelType:
    """Return the architecture of a FLUX LoRA; a guess by width if nothing else distinguishes the two."""
    flux2 = is_flux2_lora(model)
    if flux2 is None:
        flux2 = lora_hidden(model) not in {None, _HIDDEN}
    return BaseModelType.Flux2 if flux2 else BaseModelType.Flux
