"""Textual inversions: learned vectors for new tokens of a CLIP text encoder, read and temporarily applied."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from invokeclone.engine.loading.files import read_tensors

_FILES = ("learned_embeds.safetensors", "learned_embeds.bin")
_EXPANSIONS = "vectors_by_token"
"""Attribute of an extended tokenizer: the tokens of each textual inversion by its first token."""


@dataclass(frozen=True)
class TextualInversion:
    """The vectors of a textual inversion, (tokens, width): one entry per text encoder, of different widths."""

    vectors: tuple[torch.Tensor, ...]

    def of_width(self, width: int) -> torch.Tensor | None:
        """Return the vectors for a text encoder of this width, None if there are none."""
        return next((tensor for tensor in self.vectors if tensor.shape[-1] == width), None)

    def calc_size(self) -> int:
        """Return the size in bytes, for the model cache."""
        return sum(tensor.nbytes for tensor in self.vectors)


def load_textual_inversion(path: Path) -> TextualInversion:
    """Return the textual inversion of a file or folder.

    Raises ValueError for files that cannot be read or hold no vectors, and for NaN or infinite values.
    """
    file = next((path / name for name in _FILES if (path / name).is_file()), path)
    try:
        content = read_tensors(file)
    except Exception as error:  # the readers raise many kinds of errors for broken files
        raise ValueError(f"the embedding {file.name} cannot be read; download it again ({error})") from error
    vectors = tuple(torch.atleast_2d(tensor.detach()) for tensor in _vectors(content))
    if not vectors or any(tensor.ndim != 2 or not tensor.numel() for tensor in vectors):  # noqa: PLR2004 - tokens and width
        raise ValueError(f"the embedding {file.name} holds no vectors")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in vectors):
        raise ValueError(f"the embedding {file.name} is damaged: it has NaN or infinite values")
    return TextualInversion(vectors)


def _vectors(content: Mapping[str, Any]) -> Sequence[torch.Tensor]:
    """Return the tensors in the layouts of AUTOMATIC1111, of SDXL trainers, and of diffusers."""
    if "string_to_param" in content:
        return [next(iter(content["string_to_param"].values()))]
    if "emb_params" in content:
        return [content["emb_params"]]
    if "clip_g" in content and "clip_l" in content:
        return [content["clip_l"], content["clip_g"]]
    return [value for value in content.values() if isinstance(value, torch.Tensor)][:1]


@contextmanager
def with_inversions(tokenizer: Any, text_encoder: Any, inversions: Mapping[str, torch.Tensor]) -> Iterator[Any]:
    """Yield a copy of the tokenizer extended by `inversions`, while the text encoder has their vectors.

    `inversions` maps triggers to vectors (tokens, width); `encode_prompt` expands a trigger to all of its vectors.
    Raises ValueError for vectors of another width than the encoder's.
    """
    if not inversions:
        yield tokenizer
        return
    weight: nn.Parameter = text_encoder.get_input_embeddings().weight
    for trigger, vectors in inversions.items():
        if vectors.shape[1] != weight.shape[1]:
            raise ValueError(
                f"the embedding {trigger} has vectors of width {vectors.shape[1]}, the text encoder's have {weight.shape[1]}:"
                " it was made for another base"
            )
    # 1. a token for each vector
    extended_tokenizer = copy.deepcopy(tokenizer)
    expansions: dict[int, list[int]] = {}
    rows: dict[int, torch.Tensor] = {}
    for trigger, vectors in inversions.items():
        tokens = [trigger, *(f"{trigger[:-1]}-!pad-{index}>" for index in range(1, len(vectors)))]
        extended_tokenizer.add_tokens(tokens)
        numbers = extended_tokenizer.convert_tokens_to_ids(tokens)
        expansions[numbers[0]] = numbers
        rows.update(zip(numbers, vectors, strict=True))
    setattr(extended_tokenizer, _EXPANSIONS, expansions)
    # 2. append the vectors to those of the vocabulary
    original = weight.data
    with torch.inference_mode(mode=False):
        larger = original.new_zeros((max(len(original), max(rows) + 1), original.shape[1]))
        larger[: len(original)] = original
        for number, row in rows.items():
            larger[number] = row.to(original)
        weight.data = larger
    try:
        yield extended_tokenizer
    finally:
        with torch.inference_mode(mode=False):
            weight.data = original


def expand_triggers(tokenizer: Any, tokens: list[int]) -> list[int]:
    """Return the tokens with each trigger of an extended tokenizer replaced by the tokens of all of its vectors.

    With triggers of several vectors, at most as many tokens as one chunk has are returned, as compel does.
    """
    by_token: dict[int, list[int]] = getattr(tokenizer, _EXPANSIONS, {})
    if not by_token:
        return tokens
    limit = tokenizer.model_max_length - 2  # without the start and end tokens
    several = any(len(numbers) > 1 for numbers in by_token.values())
    expanded = [number for token in tokens for number in by_token.get(token, [token])]
    return expanded[:limit] if several else expanded
