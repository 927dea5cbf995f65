"""Qwen3 text encoders: loading as transformers objects, the chat template, and hidden states of prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from invokeclone.components.text_encoders.encode import hidden_states
from invokeclone.engine.loading import folders
from invokeclone.engine.loading.files import load_folder
from invokeclone.kit import log

logger = log.get("components.text_encoders")
_NO_THOUGHTS = "<think>\n\n</think>\n\n"
_PAD = "<|endoftext|>"


def load_qwen3_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a folder. Raises ValueError for a folder without one."""
    from transformers import Qwen2TokenizerFast

    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise ValueError(f"{folder} has no tokenizer (tokenizer.json): install the complete model again")
    return folders.load_plain(folder, Qwen2TokenizerFast)


def load_qwen3_encoder(folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """Return the encoder of a folder, without the output layer of a language model."""
    from transformers import Qwen3Model

    return load_folder(folder, Qwen3Model, dtype, variant)


def chat_text(prompt: str, *, thinking: bool) -> str:
    """Return Qwen3's chat with the prompt as the user's message, up to the beginning of the answer.

    Without `thinking` the answer begins with empty thoughts.
    """
    answer = "" if thinking else _NO_THOUGHTS
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{answer}"


def encode_qwen3(
    tokenizer: Any,
    text_encoder: Any,
    text: str,
    layers: Sequence[int],
    device: torch.device,
    *,
    tokens: int = 512,
    padded: bool = False,
) -> list[torch.Tensor]:
    """Return hidden states (1, tokens, width) of a text, numbered as by `hidden_states`.

    At most `tokens` tokens of the text are used. With `padded` there are always that many: padding follows the text,
    which does not attend to it. Without, there is no padding: as attention is causal, the states of the text are the
    same.
    """
    ids = tokenizer(text, verbose=False)["input_ids"]
    if len(ids) > tokens:
        logger.warning("the prompt is longer than %s tokens of Qwen3: its end is not used", tokens)
        ids = ids[:tokens]
    if not padded:
        return hidden_states(text_encoder, ids, layers, device)
    padding = tokens - len(ids)
    mask = [1] * len(ids) + [0] * padding
    return hidden_states(text_encoder, ids + [_pad_id(tokenizer)] * padding, layers, device, mask)


def _pad_id(tokenizer: Any) -> int:
    pad_id = tokenizer.pad_token_id
    return int(tokenizer.convert_tokens_to_ids(_PAD) if pad_id is None else pad_id)
