"""The tokenizer: a CLIP-style byte-pair encoding learned from the captions' words.

CLIP's format (Radford et al. 2021): bytes are written as printable characters, a word's last symbol carries ``</w>``,
and merges are applied in the order of the file. Every byte stays in the vocabulary, so that any prompt can be encoded.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from transformers import CLIPTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TOKENS = 77
START, END = "<|startoftext|>", "<|endoftext|>"
# Common prompt words outside the grammar: one token each, trained to have no meaning.
FILLER_WORDS = (
    "a",
    "an",
    "the",
    "of",
    "and",
    "with",
    "in",
    "on",
    "at",
    "to",
    "from",
    "is",
    "it",
    "its",
    "one",
    "photo",
    "photograph",
    "picture",
    "image",
    "drawing",
    "painting",
    "illustration",
    "illustrated",
    "artwork",
    "art",
    "render",
    "rendering",
    "icon",
    "sketch",
    "cartoon",
    "simple",
    "flat",
    "clean",
    "beautiful",
    "nice",
    "lovely",
    "cute",
    "masterpiece",
    "best",
    "quality",
    "high",
    "highly",
    "detailed",
    "detail",
    "sharp",
    "focus",
    "4k",
    "8k",
    "hd",
    "uhd",
    "professional",
    "trending",
    "artstation",
    "vivid",
    "bright",
    "vibrant",
    "style",
    "minimal",
    "minimalist",
    "vector",
    "digital",
    "colorful",
    "colourful",
    "low",
    "worst",
    "bad",
    "ugly",
    "blurry",
    "blurred",
    "deformed",
    "distorted",
    "jpeg",
    "artifacts",
    "noise",
    "noisy",
    "watermark",
    "text",
    "signature",
    "error",
    "cropped",
    "out",
    "frame",
    "extra",
    "lowres",
    "normal",
    "poorly",
    "drawn",
    "amateur",
    "messy",
    "soft",
    "light",
    "lighting",
    "cinematic",
    "realistic",
    "photorealistic",
    "please",
    "draw",
    "show",
    "me",
    "my",
    "some",
    "very",
)


def byte_symbols() -> dict[int, str]:
    """Map each byte to a printable character, as GPT-2 and CLIP do."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    symbols = {byte: chr(byte) for byte in printable}
    spare = (chr(256 + index) for index in range(256))
    return {byte: symbols.get(byte) or next(spare) for byte in [*printable, *sorted(set(range(256)) - set(printable))]}


def learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Learn merges, most frequent pair first, until every word is a single token (Sennrich et al. 2016)."""
    spellings = {word: [*word[:-1], f"{word[-1]}</w>"] for word in sorted(set(words))}
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for parts in spellings.values() for pair in pairwise(parts))
        if not pairs:
            return merges
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append((left, right))
        for word, parts in spellings.items():
            joined: list[str] = []
            for part in parts:
                if joined and joined[-1] == left and part == right:
                    joined[-1] = left + right
                else:
                    joined.append(part)
            spellings[word] = joined


def write_tokenizer(words: Iterable[str], folder: Path) -> CLIPTokenizer:
    """Write ``vocab.json``, ``merges.txt`` and the configuration into ``folder`` and load them back."""
    folder.mkdir(parents=True, exist_ok=True)
    symbols = list(byte_symbols().values())
    merges = learn_merges([*FILLER_WORDS, *words])
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *("".join(pair) for pair in merges)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "add_prefix_space": False, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")
    return CLIPTokenizer.from_pretrained(folder)
