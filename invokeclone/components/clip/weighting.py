"""Embeddings of weighted prompts, by compel's formulas.

A weight above 1 moves a token's embedding away from the one of an empty prompt. A weight below 1 also mixes in the
embedding of the prompt with the fragment masked. Memory and time are in proportion to the length of the prompt: a
fragment is masked only in the chunks that it is part of.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from invokeclone.components.clip import textual_inversion
from invokeclone.components.clip.prompt_nodes import Blend, Conjunction, Fragment, Swap

_ENDS_OF_SENTENCES = frozenset({".</w>"})
_ENDS_OF_PHRASES = frozenset({".</w>", ",</w>", ";</w>", ":</w>"})
_LOWEST_WEIGHT = 1e-5
_BATCH = 16
"""Rows that are encoded at a time."""


class _Chunks(NamedTuple):
    """The tokens of a prompt in chunks of the encoder's length, between start and end tokens."""

    tokens: list[list[int]]
    weights: list[list[float]]
    ranges: list[tuple[int, int] | None]
    """For each fragment the positions of its first and last token in all chunks; None without tokens."""


class WeightedEncoder:
    """Encodes parsed prompts with a CLIP text encoder."""

    def __init__(self, tokenizer: Any, text_encoder: Any, device: torch.device, *, penultimate: bool) -> None:
        self.tokenizer, self.text_encoder, self.device = tokenizer, text_encoder, device
        self.penultimate = penultimate
        self.length: int = tokenizer.model_max_length
        self._empty: torch.Tensor | None = None

    def encode(self, conjunction: Conjunction) -> torch.Tensor:
        """Return embeddings (1, n * length, width) in the encoder's number format."""
        encoded = []
        for part, weight in zip(conjunction.parts, conjunction.weights, strict=True):
            embeds = self._blend(part) if isinstance(part, Blend) else self._prompt(_originals(part))
            if weight != 1:
                empty = self._pad(self._prompt([]), embeds.shape[1])
                embeds = empty + (embeds - empty) * weight
            encoded.append(embeds)
        return torch.cat(encoded, dim=1)

    def _blend(self, blend: Blend) -> torch.Tensor:
        encoded = [self._prompt(prompt) for prompt in blend.prompts]
        longest = max(embeds.shape[1] for embeds in encoded)
        stacked = torch.stack([self._pad(embeds, longest) for embeds in encoded], dim=1)
        return _average(stacked, blend.weights, normalize=blend.normalize)

    def _pad(self, embeds: torch.Tensor, length: int) -> torch.Tensor:
        missing = (length - embeds.shape[1]) // self.length
        return torch.cat([embeds, *[self._empty_embeds().to(embeds)] * missing], dim=1)

    def _prompt(self, fragments: Sequence[Fragment]) -> torch.Tensor:
        """Return the embeddings of fragments; none are an empty prompt."""
        chunks = self._chunks(fragments or [Fragment("")])
        lowered: dict[int, list[tuple[tuple[int, int], float]]] = {}
        """By chunk: the positions of each fragment with a weight under 1, and the share of the prompt without it."""
        total = 1.0
        for span, fragment in zip(chunks.ranges, fragments, strict=False):
            if fragment.weight < 1 and span is not None:
                share = _share_without(fragment.weight)
                total += share
                for number in range(span[0] // self.length, span[1] // self.length + 1):
                    lowered.setdefault(number, []).append((span, share))
        encoded = []
        for number in range(len(chunks.tokens)):
            base = self._chunk(chunks, number, [None])
            if masked := lowered.get(number):
                start = number * self.length
                hidden = [(first - start, last - start) for (first, last), _ in masked]
                rows = [self._chunk(chunks, number, hidden[at : at + _BATCH]) for at in range(0, len(hidden), _BATCH)]
                shares = [share for _, share in masked]
                stacked = torch.cat([base, *rows]).unsqueeze(0)
                base = _average(stacked, [total - sum(shares), *shares], normalize=True)
            encoded.append(base)
        return torch.cat(encoded, dim=1).to(self.text_encoder.device, dtype=self.text_encoder.dtype)

    def _chunk(self, chunks: _Chunks, number: int, hidden: Sequence[tuple[int, int] | None]) -> torch.Tensor:
        """Return the weighted embeddings of a chunk, a row for each range of tokens to hide, if any."""
        mask = torch.ones(len(hidden), self.length, dtype=torch.long, device=self.device)
        for row, tokens in zip(mask, hidden, strict=True):
            if tokens is not None:
                row[max(tokens[0], 1) : min(tokens[1] + 1, self.length - 1)] = 0
        embeds = self._hidden_state(chunks.tokens[number], mask)
        weights = torch.tensor(chunks.weights[number], dtype=torch.float32, device=embeds.device)
        weights = weights.reshape(-1, 1).expand(embeds.shape)
        if bool((weights == 1).all()):
            return embeds
        empty = self._empty_embeds().to(self.device)
        return torch.where(weights == 1, embeds, empty + (embeds - empty) * weights)

    def _empty_embeds(self) -> torch.Tensor:
        if self._empty is None:
            ends = [self.tokenizer.bos_token_id, self.tokenizer.eos_token_id]
            self._empty = self._hidden_state(ends + [self.tokenizer.pad_token_id] * (self.length - 2), None)
        return self._empty

    def _hidden_state(self, tokens: list[int], mask: torch.Tensor | None) -> torch.Tensor:
        inputs = torch.tensor([tokens] * (1 if mask is None else len(mask)), device=self.device)
        output = self.text_encoder(inputs, mask, output_hidden_states=self.penultimate, return_dict=True)
        embeds: torch.Tensor = output.hidden_states[-2] if self.penultimate else output.last_hidden_state
        return embeds

    # Tokens

    def _chunks(self, fragments: Sequence[Fragment]) -> _Chunks:
        by_fragment = self._tokens([fragment.text for fragment in fragments])
        tokens = [token for numbers in by_fragment for token in numbers]
        weights = [fragment.weight for fragment, numbers in zip(fragments, by_fragment, strict=True) for _ in numbers]
        chunks = _Chunks([], [], [])
        positions: list[int] = []
        start, capacity = 0, self.length - 2
        while start < len(tokens) or not chunks.tokens:
            stop = start + self._split(tokens[start : start + capacity + 1], capacity)
            inside = tokens[start:stop]
            padding = capacity - len(inside)
            positions += range(len(chunks.tokens) * self.length + 1, len(chunks.tokens) * self.length + 1 + len(inside))
            bos, eos, pad = (getattr(self.tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad"))
            chunks.tokens.append([bos, *inside, eos, *[pad] * padding])
            chunks.weights.append([1.0, *weights[start:stop], 1.0, *[1.0] * padding])
            start = stop
        start = 0
        for numbers in by_fragment:
            stop = start + len(numbers)
            chunks.ranges.append((positions[start], positions[stop - 1]) if numbers else None)
            start = stop
        return chunks

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """Return each text's tokens, without start and end tokens."""
        result = []
        for numbers in self.tokenizer(texts, truncation=False, verbose=False)["input_ids"]:
            inner = numbers[1:] if numbers[:1] == [self.tokenizer.bos_token_id] else numbers
            inner = inner[:-1] if inner[-1:] == [self.tokenizer.eos_token_id] else inner
            result.append(textual_inversion.expand_triggers(self.tokenizer, inner))
        return result

    def _split(self, tokens: list[int], capacity: int) -> int:
        """Return how many tokens go into the next chunk: up to the last sentence, phrase or word that ends in it."""
        if len(tokens) <= capacity:
            return capacity
        texts = self.tokenizer.convert_ids_to_tokens(tokens[:capacity])
        for ends in (_ENDS_OF_SENTENCES, _ENDS_OF_PHRASES):
            if split := _last(texts, [text in ends for text in texts]):
                return split
        return _last(texts, [text.endswith("</w>") for text in texts]) or capacity


def _last(texts: list[str], ends: list[bool]) -> int:
    return next((index + 1 for index in range(len(texts) - 1, -1, -1) if ends[index]), 0)


def _originals(part: Sequence[Fragment | Swap]) -> list[Fragment]:
    return [item for entry in part for item in (entry.original if isinstance(entry, Swap) else (entry,))]


def _share_without(weight: float) -> float:
    """Return the share of the embedding without a fragment of this weight, relative to the one with it."""
    return math.tan((1.0 - max(_LOWEST_WEIGHT, weight)) * math.pi / 2)


def _average(stacked: torch.Tensor, weights: Sequence[float], *, normalize: bool) -> torch.Tensor:
    factors = torch.tensor(weights, dtype=stacked.dtype, device=stacked.device)
    if normalize:
        factors = factors / factors.sum()
    return torch.sum(stacked * factors.reshape(-1, 1, 1), dim=1)
