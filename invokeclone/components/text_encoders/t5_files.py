"""T5 encoders in single files, and in folders with 8 bits by bitsandbytes, which transformers cannot read."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from invokeclone.engine.loading.files import read_json
from invokeclone.engine.quantized.files import read_weights
from invokeclone.engine.quantized.packed import PackedTensor, Weights, fill
from invokeclone.models.files import gguf

_MAX_TOKENS = 512
_BLOCK = re.compile(r"enc\.blk\.(\d+)\.(.+)")
_NAMES = {"token_embd.weight": "shared.weight", "enc.output_norm.weight": "encoder.final_layer_norm.weight"}
_ATTENTION, _FEED_FORWARD = "layer.0.SelfAttention", "layer.1.DenseReluDense"
_BLOCK_NAMES = {
    **{f"attn_{side}.weight": f"{_ATTENTION}.{side}.weight" for side in "qkvo"},
    "attn_rel_b.weight": f"{_ATTENTION}.relative_attention_bias.weight",
    "attn_norm.weight": "layer.0.layer_norm.weight",
    "ffn_gate.weight": f"{_FEED_FORWARD}.wi_0.weight",
    "ffn_up.weight": f"{_FEED_FORWARD}.wi_1.weight",
    "ffn_down.weight": f"{_FEED_FORWARD}.wo.weight",
    "ffn_norm.weight": "layer.1.layer_norm.weight",
}
_BIAS = f"encoder.block.0.{_ATTENTION}.relative_attention_bias.weight"
_TIED = "encoder.embed_tokens.weight"
_TOKENS, _SCORES = "tokenizer.ggml.tokens", "tokenizer.ggml.scores"
_SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def load_t5_file(path: Path, dtype: torch.dtype, prefix: str = "") -> Any:
    """Return the T5EncoderModel of a GGUF or safetensors file, computing in `dtype`.

    Its tensors have the names of llama.cpp or transformers after `prefix`. Matrices stay quantized, but embeddings do
    not. Raises ValueError for missing tensors.
    """
    stored = read_weights(path, (prefix,))
    weights = {_rename(name.removeprefix(prefix)): stored.pop(name) for name in list(stored)}
    if (tied := weights.pop(_TIED, None)) is not None:
        weights.setdefault("shared.weight", tied)
    for name in ("shared.weight", _BIAS):
        if isinstance(value := weights.get(name), PackedTensor):
            weights[name] = value.decode(dtype)
    return _build(weights, dtype, path.name, {})


def _rename(name: str) -> str:
    if match := _BLOCK.fullmatch(name):
        return f"encoder.block.{match[1]}.{_BLOCK_NAMES.get(match[2], match[2])}"
    return _NAMES.get(name, name)


def load_int8_encoder(folder: Path, dtype: torch.dtype) -> Any:
    """Return the T5EncoderModel of a folder whose weights bitsandbytes has quantized to 8 bits, computing in `dtype`.

    Raises ValueError for missing tensors.
    """
    file = next(iter(sorted(folder.glob("*llm_int8*.safetensors"))), None)
    if file is None:
        raise ValueError(f"{folder} has no file of weights with llm_int8 in its name: install the model again")
    return _build(read_weights(file), dtype, file.name, read_json(folder / "config.json"))


def _build(
    weights: dict[str, torch.Tensor | PackedTensor], dtype: torch.dtype, name: str, config: Mapping[str, Any]
) -> Any:
    from transformers import T5Config, T5EncoderModel

    try:
        with torch.device("meta"):
            model = T5EncoderModel(T5Config(**{**config, **_sizes(weights)}))
        missing, _ = fill(model, weights, dtype)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{name} holds an incomplete T5 encoder, download it again: {reason}") from error
    model.encoder.embed_tokens = model.shared
    missing = [key for key in missing if key != _TIED]
    if missing:
        raise ValueError(f"{name} holds an incomplete T5 encoder ({missing[0]} is missing): download it again")
    return model.eval()


def _sizes(weights: Weights) -> dict[str, Any]:
    """Return the configuration of the encoder with these tensors. Raises KeyError for missing ones."""
    first = "encoder.block.0"
    vocabulary, width = weights["shared.weight"].shape
    buckets, heads = weights[_BIAS].shape
    blocks = {name.split(".")[2] for name in weights if name.startswith("encoder.block.")}
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": weights[f"{first}.{_ATTENTION}.q.weight"].shape[0] // heads,
        "d_ff": weights[f"{first}.{_FEED_FORWARD}.wi_0.weight"].shape[0],
        "num_layers": len(blocks),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "use_cache": False,
    }


def load_gguf_tokenizer(path: Path) -> Any:
    """Return the tokenizer of a GGUF file. Raises ValueError for a file without one."""
    from transformers import T5TokenizerFast

    lists = gguf.read_lists(path, (_TOKENS, _SCORES))
    tokens, scores = lists.get(_TOKENS), lists.get(_SCORES)
    if not tokens or not scores or len(tokens) != len(scores) or not set(_SPECIAL.values()) <= set(tokens):
        raise ValueError(
            f"{path.name} comes without the tokenizer of T5: use a GGUF file that contains it, such as city96's, or a T5 "
            "encoder in a folder"
        )
    vocabulary = [(token, float(score)) for token, score in zip(tokens, scores, strict=True)]
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=_MAX_TOKENS, **_SPECIAL)
