"""Prompts to embeddings by a CLIP text encoder; weights and the rest of the prompt language are compel's."""

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
"""Characters that mean something in the prompt language (or might); a prompt without them is read as it stands."""


def encode_prompt(
    tokenizer: Any, text_encoder: Any, prompt: str, device: torch.device, *, penultimate: bool = False
) -> torch.Tensor:
    """Return the embeddings of a prompt, (1, n * 77, width), in the encoder's number format, on `device`.

    They are the last hidden state after the final norm, or with `penultimate` the one before it, without the norm.

    Longer prompts become several chunks, split between sentences where that is possible.
    Raises ValueError for a prompt that breaks the rules of its own language.
    """
    with torch.inference_mode():
        # 1. a short prompt without any language, the common case: compel would do the same, but parsing costs more than encoding
        if not _LANGUAGE.search(prompt):
            tokens = tokenizer(prompt, truncation=False, verbose=False)["input_ids"]
            if len(tokens) <= tokenizer.model_max_length:
                return _plain(tokenizer, text_encoder, tokens, device, penultimate=penultimate)
        # 2. everything else
        return _encode_weighted(tokenizer, text_encoder, prompt, device, penultimate=penultimate)


def encode_pooled(tokenizer: Any, text_encoder: Any, text: str, device: torch.device) -> torch.Tensor:
    """Return the projected embedding of a text's end, (1, width), of a CLIPTextModelWithProjection.

    The text is taken as it stands, with all prompt language in it, and cut to one chunk.
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
    """Return how a prompt is read, for a log: a line for each part of one weight, with its tokens between bars.

    Raises ValueError as `encode` does.
    """
    lines, count = [], 0
    for text, weight in _parts(_parse(prompt)):
        tokens = [token.removesuffix("</w>") for token in tokenizer.tokenize(text)]
        count += len(tokens)
        lines.append(f"{weight:g}: {'|'.join(tokens)}")
    limit = tokenizer.model_max_length - 2  # beginning and end
    return "\n".join([f"{count} tokens, {limit} are read at once, of the prompt {prompt!r}", *lines])


def _parts(parsed: Any) -> Iterator[tuple[str, float]]:
    """Go through the texts of a parsed prompt with their weights; what is swapped comes after what it is swapped for."""
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
        logger.warning(".swap() is not supported: the prompt is used as it was before swapping")
    return embeds if embeds.ndim == 3 else embeds.unsqueeze(0)  # noqa: PLR2004 - dimensions


def _parse(prompt: str) -> Any:
    from pyparsing import ParseException

    parser = _parser()
    try:
        return parser.parse_conjunction(prompt)
    except ParseException as error:
        raise ValueError(f"the prompt cannot be read at character {error.column}: {prompt!r}") from error
    except parser.ParsingException as error:
        raise ValueError(f"the prompt {prompt!r} cannot be read: {error}") from error


@cache
def _parser() -> Any:
    from compel.prompt_parser import PromptParser

    return PromptParser()


@contextmanager
def skip_layers(text_encoder: nn.Module, count: int) -> Iterator[None]:
    """Leave the last `count` layers of a CLIP text encoder out (at least one stays); the final norm stays on."""
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
