"""Mistral Small as a text encoder: tokenizers, the template of instructions, hidden states of prompts."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from invokeclone.components.text_encoders.encode import hidden_states
from invokeclone.engine.loading import folders
from invokeclone.kit import log

logger = log.get("components.text_encoders")

STATES = (10, 20, 30)
"""Hidden states that are the prompt of diffusion models."""
LAYERS = STATES[-1]
"""Number of layers that prompts need; published encoders have as many, or 40."""
TEKKEN = "tekken.json"
"""The file with Mistral's own form of a tokenizer."""
_BEGIN, _PAD = 1, 11
"""Numbers of the tokens before and beside a text, for tokenizers that do not name them."""
_IMAGE = "[IMG]"


def load_mistral_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a folder. Raises ValueError for a folder without one."""
    from transformers import PreTrainedTokenizerFast

    if (folder / "tokenizer.json").is_file():
        return folders.load_plain(folder, PreTrainedTokenizerFast)
    if (folder / TEKKEN).is_file():
        return tekken_tokenizer((folder / TEKKEN).read_bytes(), str(folder))
    raise ValueError(f"{folder} has no tokenizer (tokenizer.json or {TEKKEN}): install the complete model again")


def tekken_tokenizer(content: bytes, source: str) -> Any:
    """Return the tokenizer in the content of a `tekken.json`; `source` is its name for messages. Raises ValueError."""
    from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer

    with tempfile.TemporaryDirectory(prefix="invokeclone-tokenizer-") as folder:
        file = Path(folder) / TEKKEN
        file.write_bytes(content)
        try:
            return convert_tekken_tokenizer(str(file), chat_template="")
        except (ImportError, KeyError, TypeError, ValueError, json.JSONDecodeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"the tokenizer in {source} cannot be read: use a Mistral encoder in a folder with tokenizer.json, such "
                f"as that of FLUX.2 dev ({reason})"
            ) from error


def instruction_text(system: str, prompt: str) -> str:
    """Return Mistral's chat with a system message and the prompt as the user's message."""
    return f"[SYSTEM_PROMPT]{system}[/SYSTEM_PROMPT][INST]{prompt.replace(_IMAGE, '')}[/INST]"


def encode_mistral(
    tokenizer: Any, text_encoder: Any, text: str, device: torch.device, *, tokens: int = 512
) -> list[torch.Tensor]:
    """Return the hidden states (1, tokens, width) of a text on `device`, in the encoder's number format.

    At most `tokens` tokens of the text are used; shorter texts follow padding, which they do not attend to.
    """
    begin = _BEGIN if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    pad = _PAD if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ids = [begin, *tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]]
    if len(ids) > tokens:
        logger.warning("the prompt is longer than %s tokens of Mistral: its end is not used", tokens)
        ids = ids[:tokens]
    padding = tokens - len(ids)
    return hidden_states(
        text_encoder, [pad] * padding + ids, STATES, device, mask=[0] * padding + [1] * (tokens - padding)
    )
