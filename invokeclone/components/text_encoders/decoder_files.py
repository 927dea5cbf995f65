"""Language models in single files, safetensors and GGUF, as transformers objects without an output layer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from invokeclone.components.text_encoders.names import EMBEDDINGS, OUTPUT_LAYER, layer_of, rename
from invokeclone.engine.quantized.files import read_weights
from invokeclone.engine.quantized.packed import PackedTensor, Weights, fill
from invokeclone.models.files import gguf

_TOKENS, _MERGES, _TYPES = (f"tokenizer.ggml.{name}" for name in ("tokens", "merges", "token_type"))
_SPECIAL_TYPES = (3, 4)
"""Control tokens, and tokens that users have defined."""


def read_decoder(path: Path, dtype: torch.dtype) -> dict[str, torch.Tensor | PackedTensor]:
    """Return the tensors of a file as `rename_decoder` does."""
    return rename_decoder(read_weights(path), dtype)


def rename_decoder(stored: Weights, dtype: torch.dtype) -> dict[str, torch.Tensor | PackedTensor]:
    """Return the tensors of a language model by transformers' names; quantized embeddings are decoded to `dtype`."""
    weights: dict[str, torch.Tensor | PackedTensor] = {}
    for original, value in stored.items():
        if original.startswith(OUTPUT_LAYER) or (name := rename(original)).startswith(OUTPUT_LAYER):
            continue
        weights[name] = value.decode(dtype) if name == EMBEDDINGS and isinstance(value, PackedTensor) else value
    return weights


def count_layers(weights: Weights) -> int:
    """Return the number of layers that the tensors belong to."""
    return len({layer_of(name) for name in weights} - {None})


def build_decoder(
    make: Callable[[], Any], weights: dict[str, torch.Tensor | PackedTensor], dtype: torch.dtype, kind: str, file: str
) -> Any:
    """Return the network that `make` creates, with `weights`, which is emptied; quantized matrices stay quantized.

    `kind` and `file` are names for messages. Raises ValueError for missing tensors, and for sizes that do not fit each other.
    """
    try:
        with torch.device("meta"):
            model = make()
        missing, _ = fill(model, weights, dtype)
    except (ArithmeticError, KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{file} holds an incomplete {kind} encoder, download it again: {reason}") from error
    if missing:
        raise ValueError(f"{file} holds an incomplete {kind} encoder ({missing[0]} is missing): download it again")
    model.rotary_emb = type(model.rotary_emb)(config=model.config)  # its frequencies are not in the file
    return model.eval()


class Vocabulary(NamedTuple):
    """The tokenizer in a GGUF file: tokens by their numbers, merges, and the special ones of the tokens."""

    tokens: list[str]
    merges: list[tuple[str, str]]
    special: list[str]

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each token."""
        return {token: number for number, token in enumerate(self.tokens)}


def read_vocabulary(path: Path) -> Vocabulary | None:
    """Return the byte-pair vocabulary of a GGUF file, None if it has none. Raises InvalidModel for a damaged header."""
    lists = gguf.read_lists(path, (_TOKENS, _MERGES, _TYPES))
    tokens, merges, types = (lists.get(name) or [] for name in (_TOKENS, _MERGES, _TYPES))
    if not tokens or len(types) != len(tokens):
        return None
    special = [token for token, kind in zip(tokens, types, strict=True) if kind in _SPECIAL_TYPES]
    pairs = (merge.partition(" ") for merge in merges)
    return Vocabulary(tokens, [(first, second) for first, _, second in pairs], special)
