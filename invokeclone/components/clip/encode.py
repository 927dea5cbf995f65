"""Prompt embeddings of CLIP text encoders. The prompt language, with its weights, is compel's."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from invokeclone.components.clip import textual_inversion
from invokeclone.components.clip.prompt_language import parse
from invokeclone.components.clip.prompt_nodes import Blend, Conjunction, Fragment, Swap
from invokeclone.components.clip.weighting import WeightedEncoder
from invokeclone.kit import log

logger = log.get("components.clip")
_LANGUAGE = re.compile(r"[()\[\]{}\"\\<>+\-]")
"""Characters that have (or may have) a meaning in the prompt language; a prompt without them is encoded literally."""


def encode_prompt(
    tokenizer: Any, text_encoder: Any, prompt: str, device: torch.device, *, penultimate: bool = False
) -> torch.Tensor:
    """Return the embeddings of a prompt, (1, n * 77, width), in the encoder's number format, on `device`.

    They are the last hidden state after the final norm, or with `penultimate` the one before it, without the norm.
    Long prompts are split into chunks, between sentences if possible. Raises ValueError for a syntax error in the
    prompt.
    """
    with torch.inference_mode():
        # 1. the common case, short and without prompt language
        if not _LANGUAGE.search(prompt):
            tokens = tokenizer(prompt, truncation=False, verbose=False)["input_ids"]
            if len(tokens) <= tokenizer.model_max_length:
                return _plain(tokenizer, text_encoder, tokens, device, penultimate=penultimate)
        # 2. all other prompts
        return _encode_weighted(tokenizer, text_encoder, prompt, device, penultimate=penultimate)


def encode_pooled(tokenizer: Any, text_encoder: Any, text: str, device: torch.device) -> torch.Tensor:
    """Return the projected embedding of a text's end token, (1, width), from a CLIPTextModelWithProjection.

    The text is encoded literally, including any prompt language, and truncated to one chunk.
    """
    with torch.inference_mode():
        tokens = tokenizer(text, max_length=tokenizer.model_max_length, truncation=True)["input_ids"]
        inner = textual_inversion.expand_triggers(tokenizer, tokens[1:-1])
        tokens = [tokens[0], *inner[: tokenizer.model_max_length - 2], tokens[-1]]
        padded = tokens + [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(tokens))
        embedding: torch.Tensor = text_encoder(torch.tensor([padded], device=device)).text_embeds
        return embedding


def tokenization(tokenizer: Any, prompt: str) -> str:
    """Return the tokenization of a prompt for the log.

    It has one line per part of equal weight, with tokens separated by bars. Raises ValueError for a syntax error in
    the prompt.
    """
    lines, count = [], 0
    for text, weight in _fragments(parse(prompt)):
        tokens = [token.removesuffix("</w>") for token in tokenizer.tokenize(text)]
        count += len(tokens)
        lines.append(f"{weight:g}: {'|'.join(tokens)}")
    limit = tokenizer.model_max_length - 2  # without the start and end tokens
    return "\n".join([f"{count} tokens, {limit} per chunk, of the prompt {prompt!r}", *lines])


def _fragments(conjunction: Conjunction) -> Iterator[Fragment]:
    """Yield the texts of a parsed prompt; the replacement of a swap follows the text it replaces."""
    for part in conjunction.parts:
        for prompt in part.prompts if isinstance(part, Blend) else (part,):
            for item in prompt:
                fragments = (*item.original, *item.edited) if isinstance(item, Swap) else (item,)
                yield from (fragment for fragment in fragments if fragment.text.strip())


def _plain(
    tokenizer: Any, text_encoder: Any, tokens: list[int], device: torch.device, *, penultimate: bool
) -> torch.Tensor:
    padded = tokens + [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(tokens))
    output = text_encoder(torch.tensor([padded], device=device), output_hidden_states=penultimate)
    embeds: torch.Tensor = output.hidden_states[-2] if penultimate else output[0]
    return embeds


def _encode_weighted(
    tokenizer: Any, text_encoder: Any, prompt: str, device: torch.device, *, penultimate: bool = False
) -> torch.Tensor:
    conjunction = parse(prompt)
    if any(isinstance(item, Swap) for part in conjunction.parts if not isinstance(part, Blend) for item in part):
        logger.warning(".swap() is not supported; the original text of the swap is used")
    return WeightedEncoder(tokenizer, text_encoder, device, penultimate=penultimate).encode(conjunction)


@contextmanager
def skip_layers(text_encoder: nn.Module, count: int) -> Iterator[None]:
    """Skip the last `count` layers of a CLIP text encoder (at least one stays); the final norm is kept."""
    encoder: Any = getattr(text_encoder, "text_model", text_encoder).encoder
    layers = encoder.layers
    if count <= 0:
        yield
        return
    encoder.layers = layers[: max(1, len(layers) - count)]
    try:
        yield
    finally:
        encoder.layers = layers
