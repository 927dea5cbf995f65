"""Names of the tensors of language models in single files: those of transformers, and llama.cpp's. Does not import torch."""

import re

PREFIXES = (
    "text_encoder.model.language_model.",
    "text_encoder.language_model.model.",
    "text_encoder.model.",
    "text_encoder.",
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "text_model.",
    "model.",
)
"""Prefixes that files of other programs add to transformers' names; the first that a name has is removed."""
OUTPUT_LAYER = ("lm_head.", "output.")
"""Prefixes of the output layer of a language model, which text encoders do not use."""
EMBEDDINGS = "embed_tokens.weight"
TOKENIZER = "tekken_model"
"""The tensor of Mistral's files whose bytes are a `tekken.json`."""

BLOCK_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Transformers' names of llama.cpp's layers of a block."""
OUTER_NAMES = {"token_embd": "embed_tokens", "output_norm": "norm"}
_LAYER = re.compile(r"layers\.([0-9]+)\.")
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(.+)")


def rename(name: str) -> str:
    """Return the name that a tensor has in transformers' network without an output layer."""
    if match := _BLOCK.fullmatch(name):
        return f"layers.{match[1]}.{BLOCK_NAMES.get(match[2], match[2])}.{match[3]}"
    outer, _, kind = name.partition(".")
    if outer in OUTER_NAMES:
        return f"{OUTER_NAMES[outer]}.{kind}"
    prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


def layer_of(name: str) -> int | None:
    """Return the number of the layer that a tensor belongs to, None for the others."""
    match = _LAYER.match(name)
    return int(match[1]) if match else None
