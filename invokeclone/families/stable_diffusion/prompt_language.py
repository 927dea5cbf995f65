"""Writing of prompts in the prompt language of compel, which Stable Diffusion uses."""

import re

from invokeclone.graph.prompts import Prompt, PromptSegment

_SPECIAL = re.compile(r'([()"])')
_WEIGHT_SIGNS = re.compile(r"(?<=[^\s+-])([+-]{2,}|[+-](?=\s|$|[,.;:!?=)\\]))")
"""Plus and minus signs that would weight the preceding word: several, or one at its end."""
_OPERATOR = re.compile(r"\.(?=(?:swap|attend|blend|and|add)\b)")
"""Text that compel would parse as an operator next to a weighted segment."""
_UNREADABLE = re.compile(r"(=|(?<![=+.,-])[=+.,-]{2,}|[+-](?![^\W_]))")
"""Signs that compel cannot parse in parentheses; they are written outside, literally and with weight 1."""
_LAST_BACKSLASH = re.compile(r'\\(?=[()"]|$)')
"""A backslash that compel would treat as an escape character."""


def write(prompt: Prompt) -> str:
    """Return a prompt in compel's language; native text is returned unchanged."""
    if prompt.native is not None:
        return prompt.native
    if [len(chunk) for chunk in prompt.chunks] == [1] and prompt.chunks[0][0].is_neutral:
        return _plain(prompt.chunks[0][0].text)
    chunks = [" ".join(written for segment in chunk if (written := _segment(segment))) for chunk in prompt.chunks]
    if len(chunks) == 1:
        return chunks[0]
    quoted = ", ".join(f'"{chunk}"' for chunk in chunks)
    return f"({quoted}).and()"


def escape(text: str) -> str:
    """Return text whose characters compel reads literally."""
    return _WEIGHT_SIGNS.sub(r" \1", _SPECIAL.sub(r"\\\1", text))


def _segment(segment: PromptSegment) -> str:
    text = " ".join(segment.text.split())
    if segment.is_neutral:
        return _plain(text)
    parts = [(part.strip(), number % 2 == 1) for number, part in enumerate(_UNREADABLE.split(text))]
    weight = f"{segment.weight:.4f}".rstrip("0").rstrip(".")
    return " ".join(_plain(part) if sign else f"({_plain(part)}){weight}" for part, sign in parts if part)


def _plain(text: str) -> str:
    return escape(_LAST_BACKSLASH.sub(r"\\ ", _OPERATOR.sub(". ", text)))
