"""Prompt embeddings of CLIP text encoders. The prompt language, with its weights, is compel's."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn

from invokeclone.components.clip import textual_inversion
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
        # 1. the common case, short and without prompt language: same result as compel, whose parsing costs more than
        # encoding
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
        if manager := textual_inversion.manager_of(tokenizer):
            expanded = manager.expand_textual_inversion_token_ids_if_necessary(tokens[1:-1])
            tokens = [tokens[0], *expanded[: tokenizer.model_max_length - 2], tokens[-1]]
        padded = tokens + [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(tokens))
        embedding: torch.Tensor = text_encoder(torch.tensor([padded], device=device)).text_embeds
        return embedding


def tokenization(tokenizer: Any, prompt: str) -> str:
    """Return the tokenization of a prompt for the log.

    It has one line per part of equal weight, with tokens separated by bars. Raises ValueError for a syntax error in
    the prompt.
    """
    lines, count = [], 0
    for text, weight in _parts(_parse(prompt)):
        tokens = [token.removesuffix("</w>") for token in tokenizer.tokenize(text)]
        count += len(tokens)
        lines.append(f"{weight:g}: {'|'.join(tokens)}")
    limit = tokenizer.model_max_length - 2  # without the start and end tokens
    return "\n".join([f"{count} tokens, {limit} per chunk, of the prompt {prompt!r}", *lines])


def _parts(parsed: Any) -> Iterator[tuple[str, float]]:
    """Yield the texts of a parsed prompt with their weights; the replacement of a swap follows the text it replaces."""
    if hasattr(parsed, "text"):
        if parsed.text.strip():
            yield parsed.text, parsed.weight
        return
    for name in ("prompts", "children", "original", "edited"):
        for part in getattr(parsed, name, None) or ():
            yield from _parts(part)


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
    from compel import Compel, ReturnedEmbeddingsType, SplitLongTextMode

    kinds = ReturnedEmbeddingsType
    compel = Compel(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        textual_inversion_manager=textual_inversion.manager_of(tokenizer),
        truncate_long_prompts=False,
        split_long_text_mode=SplitLongTextMode.SENTENCES,
        device=device,
        returned_embeddings_type=kinds.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
        if penultimate
        else kinds.LAST_HIDDEN_STATES_NORMALIZED,
    )
    embeds, options = compel.build_conditioning_tensor_for_conjunction(_parse(prompt))
    if options.get("cross_attention_control"):
        logger.warning(".swap() is not supported; the original text of the swap is used")
    return embeds if embeds.ndim == 3 else embeds.unsqueeze(0)  # noqa: PLR2004 - dimensions


def _parse(prompt: str) -> Any:
    from pyparsing import ParseException

    parser = _parser()
    try:
        return parser.parse_conjunction(prompt)
    except ParseException as error:
        raise ValueError(f"the prompt has a syntax error at character {error.column}: {prompt!r}") from error
    except parser.ParsingException as error:
        raise ValueError(f"the prompt {prompt!r} cannot be parsed: {error}") from error


@cache
def _parser() -> Any:
    from compel.prompt_parser import PromptParser

    return PromptParser()


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
