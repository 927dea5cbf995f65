"""Values that a person types in, one or several of a kind. They pass them on and change nothing."""

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.fields import (
    BoundingBoxField,
    ColorField,
    ConditioningField,
    Input,
    InputField,
    LatentsField,
    UIComponent,
)
from invokeclone.graph.invocation import BaseInvocation, invocation
from invokeclone.graph.outputs import (
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


@invocation(
    "boolean",
    title="Boolean Primitive",
    tags=["primitives", "boolean"],
    category="primitives",
    version="1.0.1",
)
class BooleanInvocation(BaseInvocation):
    """A boolean value."""

    value: bool = InputField(default=False, description="The boolean value")

    def invoke(self, context: InvocationContext) -> BooleanOutput:
        """Give out the value."""
        return BooleanOutput(value=self.value)


@invocation(
    "integer",
    title="Integer Primitive",
    tags=["primitives", "integer"],
    category="primitives",
    version="1.0.1",
)
class IntegerInvocation(BaseInvocation):
    """An integer value."""

    value: int = InputField(default=0, description="The integer value")

    def invoke(self, context: InvocationContext) -> IntegerOutput:
        """Give out the value."""
        return IntegerOutput(value=self.value)


@invocation(
    "float",
    title="Float Primitive",
    tags=["primitives", "float"],
    category="primitives",
    version="1.0.1",
)
class FloatInvocation(BaseInvocation):
    """A float value."""

    value: float = InputField(default=0.0, description="The float value")

    def invoke(self, context: InvocationContext) -> FloatOutput:
        """Give out the value."""
        return FloatOutput(value=self.value)


@invocation(
    "string",
    title="String Primitive",
    tags=["primitives", "string"],
    category="primitives",
    version="1.0.1",
)
class StringInvocation(BaseInvocation):
    """A string value."""

    value: str = InputField(default="", description="The string value", ui_component=UIComponent.Textarea)

    def invoke(self, context: InvocationContext) -> StringOutput:
        """Give out the value."""
        return StringOutput(value=self.value)


@invocation(
    "boolean_collection",
    title="Boolean Collection Primitive",
    tags=["primitives", "boolean", "collection"],
    category="primitives",
    version="1.0.2",
)
class BooleanCollectionInvocation(BaseInvocation):
    """Several boolean values."""

    collection: list[bool] = InputField(default=[], description="The boolean values")

    def invoke(self, context: InvocationContext) -> BooleanCollectionOutput:
        """Give out the values."""
        return BooleanCollectionOutput(collection=self.collection)


@invocation(
    "integer_collection",
    title="Integer Collection Primitive",
    tags=["primitives", "integer", "collection"],
    category="primitives",
    version="1.0.2",
)
class IntegerCollectionInvocation(BaseInvocation):
    """Several integer values."""

    collection: list[int] = InputField(default=[], description="The integer values")

    def invoke(self, context: InvocationContext) -> IntegerCollectionOutput:
        """Give out the values."""
        return IntegerCollectionOutput(collection=self.collection)


@invocation(
    "float_collection",
    title="Float Collection Primitive",
    tags=["primitives", "float", "collection"],
    category="primitives",
    version="1.0.2",
)
class FloatCollectionInvocation(BaseInvocation):
    """Several float values."""

    collection: list[float] = InputField(default=[], description="The float values")

    def invoke(self, context: InvocationContext) -> FloatCollectionOutput:
        """Give out the values."""
        return FloatCollectionOutput(collection=self.collection)


@invocation(
    "string_collection",
    title="String Collection Primitive",
    tags=["primitives", "string", "collection"],
    category="primitives",
    version="1.0.2",
)
class StringCollectionInvocation(BaseInvocation):
    """Several string values."""

    collection: list[str] = InputField(default=[], description="The string values")

    def invoke(self, context: InvocationContext) -> StringCollectionOutput:
        """Give out the values."""
        return StringCollectionOutput(collection=self.collection)


@invocation(
    "latents",
    title="Latents Primitive",
    tags=["primitives", "latents"],
    category="primitives",
    version="1.0.2",
)
class LatentsInvocation(BaseInvocation):
    """Latents."""

    latents: LatentsField = InputField(description="The latents", input=Input.Connection)

    def invoke(self, context: InvocationContext) -> LatentsOutput:
        """Give out the latents and the size they decode to."""
        latents = context.tensors.load(self.latents.latents_name)
        return LatentsOutput.build(self.latents.latents_name, latents)


@invocation(
    "latents_collection",
    title="Latents Collection Primitive",
    tags=["primitives", "latents", "collection"],
    category="primitives",
    version="1.0.1",
)
class LatentsCollectionInvocation(BaseInvocation):
    """Several latents."""

    collection: list[LatentsField] = InputField(description="The latents")

    def invoke(self, context: InvocationContext) -> LatentsCollectionOutput:
        """Give out the latents."""
        return LatentsCollectionOutput(collection=self.collection)


@invocation(
    "color",
    title="Color Primitive",
    tags=["primitives", "color"],
    category="primitives",
    version="1.0.1",
)
class ColorInvocation(BaseInvocation):
    """A color."""

    color: ColorField = InputField(default=ColorField(r=0, g=0, b=0, a=255), description="The color")

    def invoke(self, context: InvocationContext) -> ColorOutput:
        """Give out the color."""
        return ColorOutput(color=self.color)


@invocation(
    "conditioning",
    title="Conditioning Primitive",
    tags=["primitives", "conditioning"],
    category="primitives",
    version="1.0.1",
)
class ConditioningInvocation(BaseInvocation):
    """A text conditioning."""

    conditioning: ConditioningField = InputField(description="The conditioning", input=Input.Connection)

    def invoke(self, context: InvocationContext) -> ConditioningOutput:
        """Give out the conditioning."""
        return ConditioningOutput(conditioning=self.conditioning)


@invocation(
    "conditioning_collection",
    title="Conditioning Collection Primitive",
    tags=["primitives", "conditioning", "collection"],
    category="primitives",
    version="1.0.2",
)
class ConditioningCollectionInvocation(BaseInvocation):
    """Several text conditionings."""

    collection: list[ConditioningField] = InputField(default=[], description="The conditionings")

    def invoke(self, context: InvocationContext) -> ConditioningCollectionOutput:
        """Give out the conditionings."""
        return ConditioningCollectionOutput(collection=self.collection)


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
        """Give out the rectangle."""
        box = BoundingBoxField(x_min=self.x_min, y_min=self.y_min, x_max=self.x_max, y_max=self.y_max)
        return BoundingBoxOutput(bounding_box=box)
