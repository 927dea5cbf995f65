"""What prompts are parsed to: nodes as they are written, and from them fragments of text with their weights."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MAX_WEIGHT = 1000.0
_ESCAPED = re.compile(r'\\([()"])')


class PromptSyntaxError(ValueError):
    """The prompt has a syntax error."""


class Fragment(NamedTuple):
    """Literal text and its weight."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Swap:
    """Text that another text would replace during the run."""

    original: tuple[Fragment, ...]
    edited: tuple[Fragment, ...]


@dataclass(frozen=True)
class Blend:
    """Prompts whose embeddings are averaged."""

    prompts: tuple[tuple[Fragment, ...], ...]
    weights: tuple[float, ...]
    normalize: bool


@dataclass(frozen=True)
class Conjunction:
    """Prompts whose embeddings are concatenated, at least one."""

    parts: tuple[tuple[Fragment | Swap, ...] | Blend, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Weighted:
    """Nodes to which a weight is applied."""

    weight: float
    children: "list[Node]"


@dataclass(frozen=True)
class Swapped:
    """Nodes that others would replace during the run."""

    original: "list[Node]"
    edited: "list[Node]"


Node = str | Weighted | Swapped


def unescape(text: str) -> str:
    """Return text without the backslashes before parentheses and quotes."""
    return _ESCAPED.sub(r"\1", _ESCAPED.sub(r"\1", text))


def check_weight(weight: float) -> float:
    """Return the weight. Raises PromptSyntaxError over MAX_WEIGHT."""
    if not abs(weight) <= MAX_WEIGHT:
        raise PromptSyntaxError(f"the prompt cannot be parsed: weights are at most {MAX_WEIGHT:g}")
    return weight


def flatten(nodes: Sequence[Node]) -> tuple[Fragment | Swap, ...]:
    """Return fragments with their total weights; neighbors of equal weight are joined. Raises PromptSyntaxError."""
    return tuple(_fuse(_leaves(nodes, 1.0)))


def _leaves(nodes: Sequence[Node], scale: float) -> Iterator[Fragment | Swap]:
    for node in nodes:
        if isinstance(node, str):
            yield Fragment(node, check_weight(scale))
        elif isinstance(node, Weighted):
            yield from _leaves(node.children, scale * node.weight)
        else:
            yield Swap(_without_swaps(node.original, scale), _without_swaps(node.edited, scale))


def _without_swaps(nodes: Sequence[Node], scale: float) -> tuple[Fragment, ...]:
    """Return the fragments of one side of a swap; of swaps inside of it the original."""
    items = _fuse(_leaves(nodes, scale))
    fragments = [part for item in items for part in (item.original if isinstance(item, Swap) else (item,))]
    return tuple(fragments) or (Fragment(""),)


def _fuse(items: Iterator[Fragment | Swap]) -> Iterator[Fragment | Swap]:
    """Yield the items with neighboring fragments of equal weight joined by a space."""
    texts: list[str] = []
    weight = 1.0
    for item in items:
        if texts and (isinstance(item, Swap) or item.weight != weight):
            yield _join(texts, weight)
            texts = []
        if isinstance(item, Swap):
            yield item
        else:
            texts.append(item.text)
            weight = item.weight
    if texts:
        yield _join(texts, weight)


def _join(texts: list[str], weight: float) -> Fragment:
    return Fragment(texts[0] if len(texts) == 1 else _ESCAPED.sub(r"\1", " ".join(texts)), weight)
