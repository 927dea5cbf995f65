"""Prompt embeddings of T5 text encoders."""

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
