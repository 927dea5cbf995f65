"""Copying values on their way from an output to an input, so that a node can do as it likes with what it gets."""

from copy import deepcopy
from enum import Enum
from typing import Any

from pydantic import BaseModel

_PLAIN = frozenset({str, int, float, bool, type(None), bytes, complex})


def copied(value: Any) -> Any:
    """Return a value that shares nothing changeable with the given one."""
    kind = type(value)
    if kind in _PLAIN or isinstance(value, Enum):
        return value
    if kind is list:
        return [copied(one) for one in value]
    if kind is dict:
        return {key: copied(one) for key, one in value.items()}
    if isinstance(value, BaseModel) and not value.__pydantic_extra__ and not value.__pydantic_private__:
        return _copied_model(value)
    return deepcopy(value)


def _copied_model(model: BaseModel) -> BaseModel:
    twin = model.model_copy()
    inside = twin.__dict__
    for name, value in inside.items():
        if type(value) not in _PLAIN:
            inside[name] = copied(value)
    return twin
