"""Copying values on their way from an output to an input, so that a node can do as it likes with what it gets."""

from copy import deepcopy
from enum import Enum
from typing import Any

from pydantic import BaseModel

_PLAIN = frozenset({str, int, float, bool, type(None), bytes, complex})


def copy_value(value: Any) -> Any:
    """Return a value that shares nothing changeable with the given one."""
    kind = type(value)
    if kind in _PLAIN or isinstance(value, Enum):
        return value
    if kind is list:
        return [copy_value(item) for item in value]
    if kind is dict:
        return {key: copy_value(item) for key, item in value.items()}
    if isinstance(value, BaseModel) and not value.__pydantic_extra__ and not value.__pydantic_private__:
        return _copy_model(value)
    return deepcopy(value)


def _copy_model(model: BaseModel) -> BaseModel:
    duplicate = model.model_copy()
    fields = duplicate.__dict__
    for name, value in fields.items():
        if type(value) not in _PLAIN:
            fields[name] = copy_value(value)
    return duplicate
