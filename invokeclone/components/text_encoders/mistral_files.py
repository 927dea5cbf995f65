"""Mistral encoders in folders and in single files: safetensors, which may contain the tokenizer, and GGUF."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from invokeclone.components.text_encoders import mistral
from invokeclone.components.text_encoders.decoder_files import (
    Vocabulary,
    build_decoder,
    count_layers,
    read_decoder,
    read_vocabulary,
    rename_decoder,
)
from invokeclone.components.text_encoders.names import EMBEDDINGS, TOKENIZER, layer_of, rename
from invokeclone.engine.loading.files import read_json, read_tensors
from invokeclone.engine.loading.folders import plain_view
from invokeclone.engine.quantized.folders import read_folder
from invokeclone.engine.quantized.gguf import read_tensors as read_gguf_tensors
from invokeclone.engine.quantized.packed import PackedTensor, Weights
from invokeclone.models.files import gguf

_HEAD, _THETA, _EPSILON, _POSITIONS = 128, 1e9, 1e-5, 131072
_EMBEDDINGS = EMBEDDINGS.removesuffix("weight")
_ARCHITECTURE = "general.architecture"
_PERMUTED = ("llama", "mistral3")
"""Architectures for which llama.cpp stores the rows of queries and keys in its own order."""
_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Mistral's tokenizer splits text into words."""


def load_mistral_folder(folder: Path, dtype: torch.dtype) -> Any:
    """Return the MistralModel of a folder, with or without a vision part, up to the last layer in use.

    It computes in `dtype`. Raises ValueError for missing tensors and for a folder without safetensors files.
    """
    from transformers import MistralConfig

    weights = rename_decoder(read_folder(folder, lambda name: _is_used(rename(name))), dtype)
    if not weights:
        raise ValueError(f"{folder} has no safetensors files of a Mistral encoder: install the complete model again")
    with plain_view(folder) as view:
        stored = read_json(view / "config.json")
    text = stored.get("text_config")
    config = MistralConfig.from_dict(text if isinstance(text, dict) else stored)
    config.num_hidden_layers = min(config.num_hidden_layers, mistral.LAYERS)
    return _build(lambda: config, weights, dtype, folder.name)


def load_mistral_file(path: Path, dtype: torch.dtype) -> Any:
    """Return the MistralModel of a file up to the last layer in use, computing in `dtype`.

    Quantized matrices stay quantized, but embeddings do not. Raises ValueError for missing tensors.
    """
    from transformers import MistralConfig

    metadata = gguf.read(path)[1] if path.suffix.lower() == ".gguf" else {}
    weights = {name: value for name, value in read_decoder(path, dtype).items() if _is_used(name)}

    def make_config() -> Any:
        config = MistralConfig(**_sizes(weights, metadata))
        if metadata.get(_ARCHITECTURE) in _PERMUTED:
            _restore_order(weights, config.head_dim)
        return config

    return _build(make_config, weights, dtype, path.name)


def _is_used(name: str) -> bool:
    """Return whether a tensor belongs to the embeddings or to a layer in use."""
    layer = layer_of(name)
    return name.startswith(_EMBEDDINGS) if layer is None else layer < mistral.LAYERS


def _build(
    make_config: Callable[[], Any], weights: dict[str, torch.Tensor | PackedTensor], dtype: torch.dtype, name: str
) -> Any:
    """Return the network without the final norm: the last hidden state in use is that of a layer amid the others."""
    from transformers import MistralModel

    def make() -> Any:
        model = MistralModel(make_config())
        model.norm = torch.nn.Identity()
        return model

    return build_decoder(make, weights, dtype, "Mistral", name)


def _sizes(weights: Weights, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the configuration of the encoder with these tensors. Raises KeyError for missing ones."""
    architecture = metadata.get(_ARCHITECTURE, "")
    head = int(metadata.get(f"{architecture}.attention.key_length", _HEAD))
    rows, width = weights["layers.0.self_attn.k_proj.weight"].shape
    return {
        "vocab_size": weights[EMBEDDINGS].shape[0],
        "hidden_size": width,
        "intermediate_size": weights["layers.0.mlp.gate_proj.weight"].shape[0],
        "num_hidden_layers": count_layers(weights),
        "num_attention_heads": weights["layers.0.self_attn.q_proj.weight"].shape[0] // head,
        "num_key_value_heads": rows // head,
        "head_dim": head,
        "rope_theta": float(metadata.get(f"{architecture}.rope.freq_base", _THETA)),
        "rms_norm_eps": float(metadata.get(f"{architecture}.attention.layer_norm_rms_epsilon", _EPSILON)),
        "max_position_embeddings": _POSITIONS,
        "sliding_window": None,
    }


def _restore_order(weights: dict[str, torch.Tensor | PackedTensor], head: int) -> None:
    """Undo llama.cpp's order of the rows of queries and keys, in which the two halves of each head alternate."""
    for name, value in weights.items():
        if name.endswith(("self_attn.q_proj.weight", "self_attn.k_proj.weight")):
            rows = torch.arange(value.shape[0], device="cpu").reshape(-1, head // 2, 2).transpose(1, 2).flatten()
            weights[name] = _take_rows(value, rows)


def _take_rows(value: torch.Tensor | PackedTensor, rows: torch.Tensor) -> torch.Tensor | PackedTensor:
    if isinstance(value, torch.Tensor):
        return value[rows]
    return replace(value, parts={name: part[rows] for name, part in value.parts.items()})


def load_file_tokenizer(path: Path) -> Any:
    """Return the tokenizer in a safetensors or GGUF file. Raises ValueError for a file without one."""
    is_gguf = path.suffix.lower() == ".gguf"
    if is_gguf and (vocabulary := read_vocabulary(path)) is not None:
        return _tokenizer_of(vocabulary)
    read = read_gguf_tensors if is_gguf else read_tensors
    stored = read(path, (TOKENIZER,)).get(TOKENIZER)
    if stored is None or isinstance(stored, PackedTensor):
        raise ValueError(
            f"{path.name} comes without the tokenizer of Mistral: use a file that contains it, or a Mistral encoder in a "
            "folder"
        )
    return mistral.tekken_tokenizer(stored.float().round().to(torch.uint8).numpy().tobytes(), path.name)


def _tokenizer_of(vocabulary: Vocabulary) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model = models.BPE(vocabulary.numbers, vocabulary.merges, fuse_unk=False, ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_SPLIT), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(vocabulary.special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
