"""Nodes for values that the user enters, single and in lists. They return their inputs unchanged."""

from typing import Any

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation
from invokeclone.graph.invocations.node_factory import make_node
from invokeclone.graph.invocations.outputs import (
    BooleanCollectionOutput,
    BooleanOutput,
    BoundingBoxOutput,
    ColorOutput,
    ConditioningCollectionOutput,
    ConditioningOutput,
    FloatCollectionOutput,
    FloatOutput,
    IntegerCollectionOutput,
    IntegerOutput,
    LatentsCollectionOutput,
    LatentsOutput,
    StringCollectionOutput,
    StringOutput,
)
from invokeclone.graph.vocabulary.fields import (
    BoundingBoxField,
    ColorField,
    ConditioningField,
    Input,
    InputField,
    LatentsField,
    UIComponent,
)


def _primitive(
    kind: str,
    field: tuple[str, Any, Any],
    output: type[BaseInvocationOutput],
    description: str,
    version: str = "1.0.1",
) -> type[BaseInvocation]:
    """Return the node that returns the value of its only field (name, annotation, InputField)."""
    name, annotation, declared = field
    words = kind.split("_")
    return make_node(
        "".join(word.capitalize() for word in words) + "Invocation",
        kind,
        description,
        {name: (annotation, declared)},
        lambda node, _: output(**{name: getattr(node, name)}),
        output,
        module=__name__,
        title=" ".join(word.capitalize() for word in words) + " Primitive",
        tags=["primitives", *words],
        category="primitives",
        version=version,
    )


def _value(default: Any, **options: Any) -> Any:
    return InputField(default=default, description="The value", **options)


def _values(**options: Any) -> Any:
    return InputField(description="The values", **options)


_TEXT = {"ui_component": UIComponent.Textarea}

BooleanInvocation = _primitive("boolean", ("value", bool, _value(default=False)), BooleanOutput, "A boolean value.")
IntegerInvocation = _primitive("integer", ("value", int, _value(0)), IntegerOutput, "An integer value.")
FloatInvocation = _primitive("float", ("value", float, _value(0.0)), FloatOutput, "A float value.")
StringInvocation = _primitive("string", ("value", str, _value("", **_TEXT)), StringOutput, "A string value.")
ColorInvocation = _primitive(
    "color", ("color", ColorField, _value(ColorField(r=0, g=0, b=0, a=255))), ColorOutput, "A color."
)
ConditioningInvocation = _primitive(
    "conditioning",
    ("conditioning", ConditioningField, InputField(description="The conditioning", input=Input.Connection)),
    ConditioningOutput,
    "A text conditioning.",
)
BooleanCollectionInvocation = _primitive(
    "boolean_collection",
    ("collection", list[bool], _values(default=[])),
    BooleanCollectionOutput,
    "A list of boolean values.",
    "1.0.2",
)
IntegerCollectionInvocation = _primitive(
    "integer_collection",
    ("collection", list[int], _values(default=[])),
    IntegerCollectionOutput,
    "A list of integer values.",
    "1.0.2",
)
FloatCollectionInvocation = _primitive(
    "float_collection",
    ("collection", list[float], _values(default=[])),
    FloatCollectionOutput,
    "A list of float values.",
    "1.0.2",
)
StringCollectionInvocation = _primitive(
    "string_collection",
    ("collection", list[str], _values(default=[])),
    StringCollectionOutput,
    "A list of string values.",
    "1.0.2",
)
ConditioningCollectionInvocation = _primitive(
    "conditioning_collection",
    ("collection", list[ConditioningField], _values(default=[])),
    ConditioningCollectionOutput,
    "A list of text conditionings.",
    "1.0.2",
)
LatentsCollectionInvocation = _primitive(
    "latents_collection",
    ("collection", list[LatentsField], _values()),
    LatentsCollectionOutput,
    "A list of latents.",
)


@invocation(
    "latents",
    title="Latents Primitive",
    tags=["primitives", "latents"],
    category="primitives",
    version="1.0.2",
)
class LatentsInvocation(BaseInvocation):
    """Latents from a connection."""

    latents: LatentsField = InputField(description="The latents", input=Input.Connection)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Return the latents and their decoded size."""
        latents = context.tensors.load(self.latents.latents_name)
        return LatentsOutput.build(self.latents.latents_name, latents)


@invocation(
    "bounding_box",
    title="Bounding Box",
    tags=["primitives", "segmentation", "collection", "bounding box"],
    category="primitives",
    version="1.0.0",
)
class BoundingBoxInvocation(BaseInvocation):
    """A rectangle."""

    x_min: int = InputField(default=0, description="Left edge, inclusive")
    y_min: int = InputField(default=0, description="Top edge, inclusive")
    x_max: int = InputField(default=0, description="Right edge, exclusive")
    y_max: int = InputField(default=0, description="Bottom edge, exclusive")

    def invoke(self, context: InvocationContext) -> BoundingBoxOutput:
        """Return the rectangle."""
        box = BoundingBoxField(x_min=self.x_min, y_min=self.y_min, x_max=self.x_max, y_max=self.y_max)
        return BoundingBoxOutput(bounding_box=box)
