"""Prompt embeddings of T5 text encoders, and hidden states of language models."""

from collections.abc import Sequence
from typing import Any

import torch

from invokeclone.kit import log

logger = log.get("components.text_encoders")


def encode_t5(tokenizer: Any, text_encoder: Any, prompt: str, tokens: int, device: torch.device) -> torch.Tensor:
    """Return the embeddings of a prompt, (1, tokens, width), in the encoder's number format, on `device`.

    Short prompts are padded and long ones truncated to `tokens`; padding is not masked.
    """
    with torch.inference_mode():
        encoded = tokenizer(
            prompt,
            padding="max_length",
            max_length=tokens,
            truncation=True,
            return_overflowing_tokens=False,
            return_tensors="pt",
        )
        if len(tokenizer(prompt, verbose=False)["input_ids"]) > tokens:
            logger.warning("the prompt is longer than %s tokens of T5: its end is not used", tokens)
        embeds: torch.Tensor = text_encoder(encoded["input_ids"].to(device)).last_hidden_state
        return embeds


def hidden_states(
    text_encoder: Any,
    ids: Sequence[int],
    layers: Sequence[int],
    device: torch.device,
    mask: Sequence[int] | None = None,
) -> list[torch.Tensor]:
    """Return hidden states (1, tokens, width) of tokens, one per entry of `layers`, on `device` in the encoder's number format.

    State 0 is the embeddings, state n the output of layer n (the last one after the final norm); numbers beyond the
    last are the last, and negative ones count from the end. `mask` is 1 for tokens that others attend to; None: all.
    """
    with torch.inference_mode():
        output = text_encoder(
            input_ids=torch.tensor([list(ids)], device=device),
            attention_mask=None if mask is None else torch.tensor([list(mask)], device=device),
            output_hidden_states=True,
            use_cache=False,
        )
        states = output.hidden_states
        return [states[min(layer, len(states) - 1)] for layer in layers]
