"""The weights that several other servers read in prompts, `(word:1.2)`, and the same prompt in compel's language.

A pair of round brackets makes what is in it 1.1 times as heavy, with a number at its end as heavy as that; square ones make
it lighter where the dialect has them. A backslash makes the bracket after it mean itself, and so does having no partner.
"""

import itertools
import math
import re
from dataclasses import dataclass

from invokeclone.families.sd1.recipe import prompt_for_compel

STEP = 1.1
"""What a pair of brackets without a number multiplies by."""
MOST = 10.0
DEEPEST = 32
"""Brackets within brackets; those that are deeper mean themselves."""
_PARTS = re.compile(r"\\.|[()\[\]]|[^\\()\[\]]+|\\", re.DOTALL)
_OPERATOR = re.compile(r"\.(?=(?:swap|attend|blend|and|add)\b)")
"""What compel would read as an operator when a weighted piece stands next to it."""
_SIGNS = re.compile(r"(=|(?<![=+.,-])[=+.,-]{2,}|[+-](?![^\W_]))")
"""Signs that compel cannot read between brackets: they stand outside, where they mean themselves and weigh 1."""
_LAST_BACKSLASH = re.compile(r'\\(?=[()"]|$)')
"""A backslash that compel would take for the escape of what comes next."""
_NUMBER = re.compile(r":\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*$")


@dataclass
class Piece:
    """Some text of one weight; 1 is usual."""

    text: str
    weight: float = 1.0
    stated: bool = False
    """Whether a number said so, which brackets further out don't change in a dialect whose numbers are absolute."""


def parse(prompt: str, *, square: bool = True, absolute: bool = False) -> list[Piece]:
    """Return the pieces of a prompt. `square`: whether square brackets make lighter.

    `absolute`: whether a number counts whatever brackets stand around it; if not, all factors are multiplied.
    """
    pieces: list[Piece] = []
    opened: list[tuple[str, int]] = []
    for part in _PARTS.findall(prompt):
        if part in ("(", "[") and (square or part == "(") and len(opened) < DEEPEST:
            opened.append((part, len(pieces)))
            pieces.append(Piece(part))
        elif part in (")", "]") and opened and opened[-1][0] == {")": "(", "]": "["}[part]:
            _, start = opened.pop()
            _close(pieces, start, part, absolute=absolute)
        else:
            is_escape = len(part) == 2 and part[0] == "\\" and part[1] in "()[]\\"  # noqa: PLR2004  (a sign and its backslash)
            pieces.append(Piece(part[1:] if is_escape else part))
    return _merged(pieces)


def _close(pieces: list[Piece], start: int, bracket: str, *, absolute: bool) -> None:
    """Weigh what stands since the opening bracket, which is taken away."""
    pieces[start].text = ""
    factor, stated = (STEP if bracket == ")" else 1 / STEP), False
    last = pieces[-1]
    if bracket == ")" and (number := _NUMBER.search(last.text)):
        last.text = last.text[: number.start()]
        factor, stated = float(number[1]), True
    for piece in pieces[start:]:
        if not (absolute and piece.stated):
            piece.weight *= factor
            piece.stated = stated


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Join neighbours of one weight, and leave out what is empty."""
    filled = [piece for piece in pieces if piece.text]
    return [
        Piece("".join(piece.text for piece in group), weight)
        for weight, group in itertools.groupby(filled, key=lambda piece: round(_sensible(piece.weight), 6))
    ]


def _sensible(weight: float) -> float:
    return min(max(weight, 0.0), MOST) if math.isfinite(weight) else 1.0


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
