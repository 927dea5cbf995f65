"""Qwen3 encoders in single files: safetensors, and GGUF with its tokenizer."""

import re
from pathlib import Path
from typing import Any

import torch

from invokeclone.engine.quantized.files import read_weights
from invokeclone.engine.quantized.packed import PackedTensor, Weights, fill
from invokeclone.models.files import gguf

_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(.+)")
_BLOCK_NAMES = {
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
_OUTER_NAMES = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}
_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "text_model.", "model.")
_UNUSED = ("lm_head.", "output.")
"""The output layer of a language model."""
_EMBEDDINGS = "embed_tokens.weight"
_THETA, _EPSILON, _POSITIONS = 1e6, 1e-6, 40960
_TOKENS, _MERGES, _TYPES = (f"tokenizer.ggml.{name}" for name in ("tokens", "merges", "token_type"))
_SPECIAL_TYPES = (3, 4)
"""Control tokens, and tokens that users have defined."""
_PAD, _END = "<|endoftext|>", "<|im_end|>"


def load_qwen3_file(path: Path, dtype: torch.dtype) -> Any:
    """Return the Qwen3Model of a file, computing in `dtype`; quantized matrices stay quantized, but embeddings do not.

    Raises ValueError for missing tensors.
    """
    from transformers import Qwen3Config, Qwen3Model

    weights: dict[str, torch.Tensor | PackedTensor] = {}
    for original, value in read_weights(path).items():
        if (name := _rename(original)).startswith(_UNUSED):
            continue
        weights[name] = value.decode(dtype) if name == _EMBEDDINGS and isinstance(value, PackedTensor) else value
    try:
        config = Qwen3Config(**_sizes(weights))
        with torch.device("meta"):
            model = Qwen3Model(config)
        missing, _ = fill(model, weights, dtype)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path.name} holds an incomplete Qwen3 encoder, download it again: {reason}") from error
    if missing:
        raise ValueError(f"{path.name} holds an incomplete Qwen3 encoder ({missing[0]} is missing): download it again")
    model.rotary_emb = type(model.rotary_emb)(config=config)  # its frequencies are not in the file
    return model.eval()


def _rename(name: str) -> str:
    """Return transformers' name of a tensor with llama.cpp's name, or with a prefix."""
    if match := _BLOCK.fullmatch(name):
        return f"layers.{match[1]}.{_BLOCK_NAMES.get(match[2], match[2])}.{match[3]}"
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    return _OUTER_NAMES.get(name, name.removeprefix(prefix))


def _sizes(weights: Weights) -> dict[str, Any]:
    """Return the configuration of the encoder with these tensors. Raises KeyError for missing ones."""
    attention = "layers.0.self_attn"
    rows, width = weights[f"{attention}.k_proj.weight"].shape
    head = weights[f"{attention}.q_norm.weight"].shape[0]
    layers = {name.split(".")[1] for name in weights if name.startswith("layers.")}
    return {
        "vocab_size": weights[_EMBEDDINGS].shape[0],
        "hidden_size": width,
        "intermediate_size": weights["layers.0.mlp.gate_proj.weight"].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": weights[f"{attention}.q_proj.weight"].shape[0] // head,
        "num_key_value_heads": rows // head,
        "head_dim": head,
        "rope_theta": _THETA,
        "rms_norm_eps": _EPSILON,
        "max_position_embeddings": _POSITIONS,
    }


def load_gguf_tokenizer(path: Path) -> Any:
    """Return the tokenizer of a GGUF file. Raises ValueError for a file without one."""
    from transformers import Qwen2TokenizerFast

    lists = gguf.read_lists(path, (_TOKENS, _MERGES, _TYPES))
    tokens, merges, types = (lists.get(name) or [] for name in (_TOKENS, _MERGES, _TYPES))
    if not {_PAD, _END} <= set(tokens) or len(types) != len(tokens):
        raise ValueError(
            f"{path.name} comes without the tokenizer of Qwen3: use a GGUF file that contains it, or a Qwen3 encoder in "
            "a folder"
        )
    special = [token for token, kind in zip(tokens, types, strict=True) if kind in _SPECIAL_TYPES]
    return Qwen2TokenizerFast(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[tuple(merge.split(" ", 1)) for merge in merges],
        pad_token=_PAD,
        eos_token=_END,
        additional_special_tokens=[token for token in special if token not in (_PAD, _END)],
    )
