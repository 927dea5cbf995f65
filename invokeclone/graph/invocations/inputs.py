"""Inputs of nodes that take one value or several."""

from typing import TypeVar

Value = TypeVar("Value")


def as_list(value: Value | list[Value] | None) -> list[Value]:
    """Return an input that is one value, a list or nothing as a new list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
