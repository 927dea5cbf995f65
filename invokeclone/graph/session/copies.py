"""Combination of iterations: copies of a node are rows, identified by the index of each iterate node upstream.

Rows of two nodes that share an iterate node are joined on its index; without a shared one all pairs are made.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Indices = dict[str, int]
"""Iterate node → index."""


class Row(NamedTuple):
    """A copy to make: its indices, and the copies of its parents that it gets its inputs from."""

    indices: Indices
    parents: dict[str, list[str]]


def agree(indices: Indices, other: Indices) -> bool:
    """Return whether two sets of indices have equal indices for all iterate nodes that both contain."""
    return all(other.get(iterator, index) == index for iterator, index in indices.items())


def join(rows: list[Row], parent: str, copies: Sequence[tuple[str, Indices]]) -> list[Row]:
    """Join rows with the copies of another parent."""
    if len(copies) == 1 and not copies[0][1]:
        return [Row(indices, {**parents, parent: [copies[0][0]]}) for indices, parents in rows]
    common = _common_iterators(rows, copies)
    if common is None:
        return [
            Row({**row.indices, **indices}, {**row.parents, parent: [copy_id]})
            for row in rows
            for copy_id, indices in copies
            if agree(row.indices, indices)
        ]
    by_key: defaultdict[tuple[int, ...], list[tuple[str, Indices]]] = defaultdict(list)
    for copy_id, indices in copies:
        by_key[tuple(indices[iterator] for iterator in common)].append((copy_id, indices))
    return [
        Row({**row.indices, **indices}, {**row.parents, parent: [copy_id]})
        for row in rows
        for copy_id, indices in by_key[tuple(row.indices[iterator] for iterator in common)]
    ]


def _common_iterators(rows: list[Row], copies: Sequence[tuple[str, Indices]]) -> list[str] | None:
    """Return the iterate nodes shared by all rows and copies; None if the rows, or the copies, differ in theirs."""
    left = [set(row.indices) for row in rows]
    right = [set(indices) for _, indices in copies]
    if any(iterators != left[0] for iterators in left) or any(iterators != right[0] for iterators in right):
        return None
    return sorted(left[0] & right[0]) if left and right else []


def path_of(indices: Indices, iterators: Iterable[str]) -> tuple[int, ...]:
    """Return a copy's indices from the outermost iterate node to the innermost."""
    return tuple(indices[iterator] for iterator in iterators if iterator in indices)
