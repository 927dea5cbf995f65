"""ComfyUI's prompt language, read into weighted pieces.

`(a)` is 1.1 times as heavy, `(a:1.3)` weighs 1.3 whatever brackets stand around it. A backslash makes the bracket after it mean
itself, and so does having no partner. Square brackets always mean themselves.
"""

import itertools
import math
import re
from dataclasses import dataclass

from invokeclone.graph.prompts import PromptSegment

STEP = 1.1
"""What a pair of brackets without a number multiplies by."""
MAX_WEIGHT = 10.0
MAX_DEPTH = 32
"""Brackets within brackets; those that are deeper mean themselves."""
_PARTS = re.compile(r"\\.|[()]|[^\\()]+|\\", re.DOTALL)
_ESCAPED = frozenset({r"\(", r"\)", "\\\\"})
_NUMBER = re.compile(r":\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*$")


@dataclass
class _Part:
    """A piece while the brackets around it are still open."""

    text: str
    weight: float = 1.0
    is_explicit: bool = False
    """Whether a number said so: brackets further out don't change it."""


def parse(prompt: str) -> list[PromptSegment]:
    """Return the pieces of a prompt, neighbours of different weight."""
    parts: list[_Part] = []
    open_brackets: list[int] = []
    for text in _PARTS.findall(prompt):
        if text == "(" and len(open_brackets) < MAX_DEPTH:
            open_brackets.append(len(parts))
            parts.append(_Part(text))
        elif text == ")" and open_brackets:
            _close(parts, open_brackets.pop())
        else:
            parts.append(_Part(text[1:] if text in _ESCAPED else text))
    return _merge_parts(parts)


def _close(parts: list[_Part], start: int) -> None:
    """Weigh what stands since the opening bracket, which is taken away."""
    parts[start].text = ""
    factor, is_explicit = STEP, False
    last = parts[-1]
    if number := _NUMBER.search(last.text):
        last.text = last.text[: number.start()]
        factor, is_explicit = float(number[1]), True
    for part in parts[start:]:
        if not part.is_explicit:
            part.weight *= factor
            part.is_explicit = is_explicit


def _merge_parts(parts: list[_Part]) -> list[PromptSegment]:
    """Join neighbours of one weight, and leave out what is empty."""
    nonempty = [part for part in parts if part.text]
    return [
        PromptSegment("".join(part.text for part in group), weight)
        for weight, group in itertools.groupby(nonempty, key=lambda part: round(_clamp_weight(part.weight), 6))
    ]


def _clamp_weight(weight: float) -> float:
    return min(max(weight, 0.0), MAX_WEIGHT) if math.isfinite(weight) else 1.0
