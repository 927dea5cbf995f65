"""Compel's prompt language, which Stable Diffusion's prompts are written in."""

import math
import re

from invokeclone.graph.prompts import Prompt, PromptSegment

_SPECIAL = re.compile(r'([()"])')
_WEIGHT_SIGNS = re.compile(r"(?<=[^\s+-])([+-]{2,}|[+-](?=\s|$|[,.;:!?=)\\]))")
"""Plus and minus signs that would weigh the word before them: several, or one at its end."""
_OPERATOR = re.compile(r"\.(?=(?:swap|attend|blend|and|add)\b)")
"""What compel would read as an operator when a weighted segment stands next to it."""
_UNREADABLE = re.compile(r"(=|(?<![=+.,-])[=+.,-]{2,}|[+-](?![^\W_]))")
"""Signs that compel cannot read between brackets: they stand outside, where they mean themselves and weigh 1."""
_LAST_BACKSLASH = re.compile(r'\\(?=[()"]|$)')
"""A backslash that compel would take for the escape of what comes next."""


def write(prompt: Prompt) -> str:
    """Return a prompt in compel's language; native text stays as it is."""
    if prompt.native is not None:
        return prompt.native
    if [len(chunk) for chunk in prompt.chunks] == [1] and _is_neutral(prompt.chunks[0][0].weight):
        return _plain(prompt.chunks[0][0].text)
    chunks = [" ".join(written for segment in chunk if (written := _segment(segment))) for chunk in prompt.chunks]
    if len(chunks) == 1:
        return chunks[0]
    quoted = ", ".join(f'"{chunk}"' for chunk in chunks)
    return f"({quoted}).and()"


def escape(text: str) -> str:
    """Return text of which compel reads every character as it stands."""
    return _WEIGHT_SIGNS.sub(r" \1", _SPECIAL.sub(r"\\\1", text))


def _is_neutral(weight: float) -> bool:
    return math.isclose(weight, 1.0, abs_tol=1e-4)


def _segment(segment: PromptSegment) -> str:
    text = " ".join(segment.text.split())
    if _is_neutral(segment.weight):
        return _plain(text)
    parts = [(part.strip(), number % 2 == 1) for number, part in enumerate(_UNREADABLE.split(text))]
    weight = f"{segment.weight:.4f}".rstrip("0").rstrip(".")
    return " ".join(_plain(part) if sign else f"({_plain(part)}){weight}" for part, sign in parts if part)


def _plain(text: str) -> str:
    return escape(_LAST_BACKSLASH.sub(r"\\ ", _OPERATOR.sub(". ", text)))
