"""Text whose pieces have weights, in compel's language: what the prompt languages of other servers come down to."""

import math
import re
from dataclasses import dataclass

from invokeclone.families.sd1.recipe import prompt_for_compel

STEP = 1.1
"""What a pair of brackets without a number multiplies by, in every such language."""
_OPERATOR = re.compile(r"\.(?=(?:swap|attend|blend|and|add)\b)")
"""What compel would read as an operator when a weighted piece stands next to it."""
_SIGNS = re.compile(r"(=|(?<![=+.,-])[=+.,-]{2,}|[+-](?![^\W_]))")
"""Signs that compel cannot read between brackets: they stand outside, where they mean themselves and weigh 1."""
_LAST_BACKSLASH = re.compile(r'\\(?=[()"]|$)')
"""A backslash that compel would take for the escape of what comes next."""


@dataclass(frozen=True)
class Piece:
    """Some text of one weight; 1 is usual."""

    text: str
    weight: float = 1.0


def for_compel(pieces: list[Piece]) -> str:
    """Return the pieces as compel reads them, on one line; what has no weight means itself, sign by sign."""
    return " ".join(written for piece in pieces if (written := _written(piece)))


def _written(piece: Piece) -> str:
    text = " ".join(piece.text.split())
    if math.isclose(piece.weight, 1.0, abs_tol=1e-4):
        return _plain(text)
    parts = [(part.strip(), number % 2 == 1) for number, part in enumerate(_SIGNS.split(text))]
    weight = f"{piece.weight:.4f}".rstrip("0").rstrip(".")
    return " ".join(_plain(part) if sign else f"({_plain(part)}){weight}" for part, sign in parts if part)


def _plain(text: str) -> str:
    """Return text of which compel reads every character as it stands."""
    return prompt_for_compel(_LAST_BACKSLASH.sub(r"\\ ", _OPERATOR.sub(". ", text)), "plain")
