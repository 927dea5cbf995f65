"""Primitives give out what they are given."""

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from invokeclone.graph.invocations import registry
from invokeclone.graph.vocabulary.fields import LatentsField
from invokeclone.nodes.data import primitives

NOTHING: Any = None


@pytest.mark.parametrize(("kind", "value"), [("boolean", True), ("integer", 3), ("float", 1.5), ("string", "x")])
def test_primitives_and_collections_return_their_value(kind: str, value: Any) -> None:
    assert registry.get(kind).model_validate({"value": value}).invoke(NOTHING).model_dump()["value"] == value
    several = registry.get(f"{kind}_collection").model_validate({"collection": [value, value]})
    assert several.invoke(NOTHING).model_dump()["collection"] == [value, value]


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("color", "color", {"r": 1, "g": 2, "b": 3, "a": 4}),
        ("conditioning", "conditioning", {"conditioning_name": "c", "mask": None}),
        ("conditioning_collection", "collection", [{"conditioning_name": "c", "mask": None}]),
        ("latents_collection", "collection", [{"latents_name": "l", "seed": 1}]),
    ],
)
def test_fields(kind: str, field: str, value: Any) -> None:
    assert registry.get(kind).model_validate({field: value}).invoke_checked(NOTHING).model_dump()[field] == value


def test_defaults() -> None:
    color = primitives.ColorInvocation().invoke(NOTHING).color
    assert color.tuple() == (0, 0, 0, 255)


def test_latents() -> None:
    tensors = SimpleNamespace(load=lambda name: SimpleNamespace(size=lambda: (1, 4, 64, 96)))
    context: Any = SimpleNamespace(tensors=tensors)
    output = primitives.LatentsInvocation(latents=LatentsField(latents_name="l")).invoke(context)
    assert (output.width, output.height) == (768, 512)


def test_bounding_box() -> None:
    box = primitives.BoundingBoxInvocation(x_min=1, y_min=2, x_max=3, y_max=4).invoke(NOTHING).bounding_box
    assert box.tuple() == (1, 2, 3, 4)
    with pytest.raises(ValidationError):
        primitives.BoundingBoxInvocation(x_min=3, x_max=1).invoke(NOTHING)
