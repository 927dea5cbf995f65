"""Serializing large models as JSON in slices, because a serializer holds the interpreter lock throughout a call."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter

SLICE = 200


def list_json(adapter: TypeAdapter[Any], items: Sequence[Any]) -> str:
    """Return the JSON text of a list; `adapter` is the adapter of the list type."""
    slices = (items[start : start + SLICE] for start in range(0, len(items), SLICE))
    return f"[{','.join([adapter.dump_json(part)[1:-1].decode() for part in slices])}]"


def model_json(model: BaseModel, **texts: str) -> str:
    """Return the same as `model_dump_json`, given the JSON texts of the large fields."""
    members = [
        f'"{name}":{texts[name]}' if name in texts else model.model_dump_json(include={name})[1:-1]
        for name in type(model).model_fields
    ]
    return f"{{{','.join(filter(None, members))}}}"
