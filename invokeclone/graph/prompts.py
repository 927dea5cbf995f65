"""A prompt as clients of any API state it: segments with weights, or text in the model's own prompt language."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class PromptSegment:
    """Some text, every character of which means itself, and its weight; 1 is usual."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Prompt:
    """What an image is to show. A family's recipe writes it in the prompt language of its models."""

    chunks: tuple[tuple[PromptSegment, ...], ...] = ()
    """Chunks are encoded apart from each other and put behind each other, where a family can do that."""
    native: str | None = None
    """Text in the model's own prompt language; there are no chunks then."""

    @classmethod
    def plain(cls, text: str) -> "Prompt":
        """Return a prompt without weights."""
        return cls(((PromptSegment(text),),))

    @classmethod
    def from_segments(cls, segments: Iterable[PromptSegment]) -> "Prompt":
        """Return a prompt of one chunk."""
        return cls((tuple(segments),))

    @property
    def raw_text(self) -> str:
        """All that was given, as it was given."""
        return self.native or "".join(segment.text for chunk in self.chunks for segment in chunk)

    @property
    def text(self) -> str:
        """The words alone: native text as it stands, or the segments without their weights, on one line."""
        if self.native is not None:
            return self.native
        return " ".join(" ".join(segment.text.split()) for chunk in self.chunks for segment in chunk).strip()
