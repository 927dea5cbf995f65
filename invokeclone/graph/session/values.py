"""Copies of values passed from outputs to inputs, so that a node can modify its inputs."""

from copy import deepcopy
from enum import Enum
from typing import Any

from pydantic import BaseModel

_PLAIN = frozenset({str, int, float, bool, type(None), bytes, complex})


def copy_value(value: Any) -> Any:
    """Return a copy of a value that shares no mutable object with it."""
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
