"""Signatures of FLUX.1 and FLUX.2 files, and how to distinguish the two."""

import re

from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.signatures import forms
from invokeclone.models.identify.signatures.loras import input_of, names_match

TRANSFORMER_MARK = "double_blocks.0.img_attn.norm.key_norm.scale"
CONTEXT_WIDTHS = (7680, 12288, 15360)
_FLUX1_CONTEXT, _FLUX2_LATENTS, _HIDDEN = 4096, 128, 3072

_blocks = names_match(r"(?:double|single)_blocks[._]\d")
_diffusers_blocks = names_match(
    r"single_transformer_blocks[._]\d|transformer_blocks[._]\d+[._](?:ff_context|norm1_context)"
)
_FUSED = re.compile(r"to_qkv_mlp_proj|ff\.linear_in|ff_linear_in")
_FIRST = r"(?:double_blocks[._]\d+[._]img_attn[._]qkv|transformer_blocks[._]\d+[._]attn[._]to_q)\b"


def context_width(model: ModelFiles) -> int:
    """Return the width of a transformer's text embeddings; 0 if it has no such layer."""
    tensors = model.without_prefixes(*forms.COMFY_PREFIXES)
    weight = tensors.get("txt_in.weight") or tensors.get("context_embedder.weight")
    return weight.shape[-1] if weight and weight.shape else 0


def is_flux2_transformer(model: ModelFiles) -> bool:
    """Return whether a transformer file is for FLUX.2."""
    first = model.without_prefixes(*forms.COMFY_PREFIXES).get("img_in.weight")
    return context_width(model) > _FLUX1_CONTEXT or bool(first and first.shape[-1] == _FLUX2_LATENTS)


def is_flux_lora(model: ModelFiles) -> bool:
    """Return whether a LoRA is for FLUX.1 or FLUX.2, by the layer names of the known trainers."""
    return _blocks(model) or _diffusers_blocks(model)


def lora_context(model: ModelFiles) -> int | None:
    """Return the width of the text embeddings that a LoRA was trained for, if it changes that layer."""
    return input_of(model, r"(?:context_embedder|txt_in)\b")


def lora_hidden(model: ModelFiles) -> int | None:
    """Return the width of the transformer that a LoRA was trained for."""
    return input_of(model, _FIRST)


def is_flux2_lora(model: ModelFiles) -> bool:
    """Return whether a FLUX LoRA is for FLUX.2."""
    fused = any(_FUSED.search(name) for name in model.tensors)
    return fused or lora_context(model) in CONTEXT_WIDTHS or lora_hidden(model) not in {None, _HIDDEN}
