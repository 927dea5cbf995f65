"""Qwen3 encoders in single files: safetensors, and GGUF with its tokenizer."""

from pathlib import Path
from typing import Any

import torch

from invokeclone.components.text_encoders.decoder_files import (
    build_decoder,
    count_layers,
    read_decoder,
    read_vocabulary,
)
from invokeclone.components.text_encoders.names import EMBEDDINGS
from invokeclone.engine.quantized.packed import Weights

_THETA, _EPSILON, _POSITIONS = 1e6, 1e-6, 40960
_PAD, _END = "<|endoftext|>", "<|im_end|>"


def load_qwen3_file(path: Path, dtype: torch.dtype) -> Any:
    """Return the Qwen3Model of a file, computing in `dtype`; quantized matrices stay quantized, but embeddings do not.

    Raises ValueError for missing tensors.
    """
    from transformers import Qwen3Config, Qwen3Model

    weights = read_decoder(path, dtype)
    return build_decoder(lambda: Qwen3Model(Qwen3Config(**_sizes(weights))), weights, dtype, "Qwen3", path.name)


def _sizes(weights: Weights) -> dict[str, Any]:
    """Return the configuration of the encoder with these tensors. Raises KeyError for missing ones."""
    attention = "layers.0.self_attn"
    rows, width = weights[f"{attention}.k_proj.weight"].shape
    head = weights[f"{attention}.q_norm.weight"].shape[0]
    return {
        "vocab_size": weights[EMBEDDINGS].shape[0],
        "hidden_size": width,
        "intermediate_size": weights["layers.0.mlp.gate_proj.weight"].shape[0],
        "num_hidden_layers": count_layers(weights),
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

    vocabulary = read_vocabulary(path)
    if vocabulary is None or not {_PAD, _END} <= set(vocabulary.tokens):
        raise ValueError(
            f"{path.name} comes without the tokenizer of Qwen3: use a GGUF file that contains it, or a Qwen3 encoder in "
            "a folder"
        )
    return Qwen2TokenizerFast(
        vocab=vocabulary.numbers,
        merges=vocabulary.merges,
        pad_token=_PAD,
        eos_token=_END,
        additional_special_tokens=[token for token in vocabulary.special if token not in (_PAD, _END)],
    )
