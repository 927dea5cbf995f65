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
MOST = 10.0
DEEPEST = 32
"""Brackets within brackets; those that are deeper mean themselves."""
_PARTS = re.compile(r"\\.|[()]|[^\\()]+|\\", re.DOTALL)
_ESCAPED = frozenset({r"\(", r"\)", "\\\\"})
_NUMBER = re.compile(r":\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*$")


@dataclass
class _Part:
    """A piece while the brackets around it are still open."""

    text: str
    weight: float = 1.0
    is_stated: bool = False
    """Whether a number said so: brackets further out don't change it."""


def parse(prompt: str) -> list[PromptSegment]:
    """Return the pieces of a prompt, neighbours of different weight."""
    parts: list[_Part] = []
    opened: list[int] = []
    for text in _PARTS.findall(prompt):
        if text == "(" and len(opened) < DEEPEST:
            opened.append(len(parts))
            parts.append(_Part(text))
        elif text == ")" and opened:
            _close(parts, opened.pop())
        else:
            parts.append(_Part(text[1:] if text in _ESCAPED else text))
    return _merged(parts)


def _close(parts: list[_Part], start: int) -> None:
    """Weigh what stands since the opening bracket, which is taken away."""
    parts[start].text = ""
    factor, is_stated = STEP, False
    last = parts[-1]
    if number := _NUMBER.search(last.text):
        last.text = last.text[: number.start()]
        factor, is_stated = float(number[1]), True
    for part in parts[start:]:
        if not part.is_stated:
            part.weight *= factor
            part.is_stated = is_stated


def _merged(parts: list[_Part]) -> list[PromptSegment]:
    """Join neighbours of one weight, and leave out what is empty."""
    filled = [part for part in parts if part.text]
    return [
        PromptSegment("".join(part.text for part in group), weight)
        for weight, group in itertools.groupby(filled, key=lambda part: round(_sensible(part.weight), 6))
    ]


def _sensible(weight: float) -> float:
    return min(max(weight, 0.0), MOST) if math.isfinite(weight) else 1.0
