"""Parses ComfyUI's prompt syntax into weighted segments.

`(a)` multiplies the weight by 1.1, `(a:1.3)` sets it to 1.3 whatever brackets surround it. A backslash escapes a
bracket; a bracket without a counterpart is literal. Square brackets are always literal.
"""

import itertools
import math
import re
from dataclasses import dataclass

from invokeclone.graph.prompts import PromptSegment

STEP = 1.1
"""Factor of a pair of brackets without a number."""
MAX_WEIGHT = 10.0
MAX_DEPTH = 32
"""Maximum nesting of brackets; deeper ones are literal."""
_PARTS = re.compile(r"\\.|[()]|[^\\()]+|\\", re.DOTALL)
_ESCAPED = frozenset({r"\(", r"\)", "\\\\"})
_NUMBER = re.compile(r":\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*$")


@dataclass
class _Part:
    """A segment while its surrounding brackets are still open."""

    text: str
    weight: float = 1.0
    is_explicit: bool = False
    """Whether the weight was given as a number, so that outer brackets do not change it."""


def parse(prompt: str) -> list[PromptSegment]:
    """Return the segments of a prompt; adjacent ones have different weights."""
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
    """Weight the parts since the opening bracket, and remove the bracket."""
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
    """Join adjacent parts of equal weight, and drop empty ones."""
    nonempty = [part for part in parts if part.text]
    return [
        PromptSegment("".join(part.text for part in group), weight)
        for weight, group in itertools.groupby(nonempty, key=lambda part: round(_clamp_weight(part.weight), 6))
    ]


def _clamp_weight(weight: float) -> float:
    return min(max(weight, 0.0), MAX_WEIGHT) if math.isfinite(weight) else 1.0
