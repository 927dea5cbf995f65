"""Prompts independent of a model's prompt language: weighted segments, or text in the model's own prompt language."""

from collections.abc import Iterable
from dataclasses import dataclass

NEUTRAL = 1e-4
"""Difference from 1 below which a weight has no effect."""


@dataclass(frozen=True)
class PromptSegment:
    """Literal text, without prompt syntax, and its weight (1 is neutral)."""

    text: str
    weight: float = 1.0

    @property
    def is_neutral(self) -> bool:
        """Whether the weight has no effect."""
        return abs(self.weight - 1.0) <= NEUTRAL


@dataclass(frozen=True)
class Prompt:
    """A prompt for an image. A family's recipe converts it to the prompt language of its models."""

    chunks: tuple[tuple[PromptSegment, ...], ...] = ()
    """Chunks are encoded separately and concatenated, where a family supports that."""
    native: str | None = None
    """Text in the model's own prompt language; `chunks` is then empty."""

    @classmethod
    def plain(cls, text: str) -> "Prompt":
        """Return a prompt without weights."""
        return cls(((PromptSegment(text),),))

    @classmethod
    def from_segments(cls, segments: Iterable[PromptSegment]) -> "Prompt":
        """Return a prompt of one chunk."""
        return cls((tuple(segments),))

    @property
    def is_weighted(self) -> bool:
        """Whether a segment has another weight than 1."""
        return any(not segment.is_neutral for chunk in self.chunks for segment in chunk)

    @property
    def raw_text(self) -> str:
        """The text as it was given."""
        return self.native or "".join(segment.text for chunk in self.chunks for segment in chunk)

    @property
    def text(self) -> str:
        """The native text unchanged, or the segments without their weights on one line."""
        if self.native is not None:
            return self.native
        return " ".join(" ".join(segment.text.split()) for chunk in self.chunks for segment in chunk).strip()
