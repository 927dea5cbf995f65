"""Nodes that stand for a batch in an editor. Clients turn them into batch data before they enqueue; they never run."""

from typing import Literal, NoReturn

from pydantic import BaseModel

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.fields import ImageField, Input, InputField, OutputField
from invokeclone.graph.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.outputs import FloatOutput, ImageOutput, IntegerOutput, StringOutput
from invokeclone.graph.taxonomy import Classification

BATCH_GROUP_IDS = Literal["None", "Group 1", "Group 2", "Group 3", "Group 4", "Group 5"]


class NotExecutableNodeError(Exception):
    """This node only stands for something an editor does; it cannot run."""


def refuse(node: BaseInvocation) -> NoReturn:
    """Raise NotExecutableNodeError for a node."""
    message = f"{type(node).__name__} cannot be run: it is meant to be turned into batch data before enqueuing"
    raise NotExecutableNodeError(message)


class ImageGeneratorField(BaseModel):
    """How an editor makes images for a batch."""


class StringGeneratorField(BaseModel):
    """How an editor makes strings for a batch."""


class IntegerGeneratorField(BaseModel):
    """How an editor makes integers for a batch."""


class FloatGeneratorField(BaseModel):
    """How an editor makes floats for a batch."""


@invocation_output("image_generator_output")
class ImageGeneratorOutput(BaseInvocationOutput):
    """Images for a batch."""

    images: list[ImageField] = OutputField(description="The images")


@invocation_output("string_generator_output")
class StringGeneratorOutput(BaseInvocationOutput):
    """Strings for a batch."""

    strings: list[str] = OutputField(description="The strings")


@invocation_output("integer_generator_output")
class IntegerGeneratorOutput(BaseInvocationOutput):
    """Integers for a batch."""

    integers: list[int] = OutputField(description="The integers")


@invocation_output("float_generator_output")
class FloatGeneratorOutput(BaseInvocationOutput):
    """Floats for a batch."""

    floats: list[float] = OutputField(description="The floats")


@invocation(
    "image_batch",
    title="Image Batch",
    tags=["primitives", "image", "batch", "special"],
    category="batch",
    version="1.0.0",
    classification=Classification.Special,
)
class ImageBatchInvocation(BaseInvocation):
    """Run a workflow once for each image."""

    batch_group_id: BATCH_GROUP_IDS = InputField(
        default="None",
        description="Batches of one group go in step; the others are multiplied",
        title="Batch Group",
        input=Input.Direct,
    )
    images: list[ImageField] = InputField(min_length=1, description="The images")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Refuse to run."""
        refuse(self)


@invocation(
    "image_generator",
    title="Image Generator",
    tags=["primitives", "board", "image", "batch", "special"],
    category="batch",
    version="1.0.0",
    classification=Classification.Special,
)
class ImageGenerator(BaseInvocation):
    """Make images for a batch."""

    generator: ImageGeneratorField = InputField(
        description="How the images are made", title="Generator Type", input=Input.Direct
    )

    def invoke(self, context: InvocationContext) -> ImageGeneratorOutput:
        """Refuse to run."""
        refuse(self)


@invocation(
    "string_batch",
    title="String Batch",
    tags=["primitives", "string", "batch", "special"],
    category="batch",
    version="1.0.0",
    classification=Classification.Special,
)
class StringBatchInvocation(BaseInvocation):
    """Run a workflow once for each string."""

    batch_group_id: BATCH_GROUP_IDS = InputField(
        default="None",
        description="Batches of one group go in step; the others are multiplied",
        title="Batch Group",
        input=Input.Direct,
    )
    strings: list[str] = InputField(min_length=1, description="The strings")

    def invoke(self, context: InvocationContext) -> StringOutput:
        """Refuse to run."""
        refuse(self)


@invocation(
    "string_generator",
    title="String Generator",
    tags=["primitives", "string", "number", "batch", "special"],
    category="batch",
    version="1.0.0",
    classification=Classification.Special,
)
class StringGenerator(BaseInvocation):
    """Make strings for a batch."""

    generator: StringGeneratorField = InputField(
        description="How the strings are made", title="Generator Type", input=Input.Direct
    )

    def invoke(self, context: InvocationContext) -> StringGeneratorOutput:
        """Refuse to run."""
        refuse(self)


@invocation(
    "integer_batch",
    title="Integer Batch",
    tags=["primitives", "integer", "number", "batch", "special"],
    category="batch",
    version="1.0.0",
    classification=Classification.Special,
)
class IntegerBatchInvocation(BaseInvocation):
    """Run a workflow once for each integer."""

    batch_group_id: BATCH_GROUP_IDS = InputField(
        default="None",
        description="Batches of one group go in step; the others are multiplied",
        title="Batch Group",
        input=Input.Direct,
    )
    integers: list[int] = InputField(min_length=1, description="The integers")

    def invoke(self, context: InvocationContext) -> IntegerOutput:
        """Refuse to run."""
        refuse(self)


@invocation(
    "integer_generator",
    title="Integer Generator",
    tags=["primitives", "int", "number", "batch", "special"],
    category="batch",
    version="1.0.0",
    classification=Classification.Special,
)
class IntegerGenerator(BaseInvocation):
    """Make integers for a batch."""

    generator: IntegerGeneratorField = InputField(
        description="How the integers are made", title="Generator Type", input=Input.Direct
    )

    def invoke(self, context: InvocationContext) -> IntegerGeneratorOutput:
        """Refuse to run."""
        refuse(self)


@invocation(
    "float_batch",
    title="Float Batch",
    tags=["primitives", "float", "number", "batch", "special"],
    category="batch",
    version="1.0.0",
    classification=Classification.Special,
)
class FloatBatchInvocation(BaseInvocation):
    """Run a workflow once for each float."""

    batch_group_id: BATCH_GROUP_IDS = InputField(
        default="None",
        description="Batches of one group go in step; the others are multiplied",
        title="Batch Group",
        input=Input.Direct,
    )
    floats: list[float] = InputField(min_length=1, description="The floats")

    def invoke(self, context: InvocationContext) -> FloatOutput:
        """Refuse to run."""
        refuse(self)


@invocation(
    "float_generator",
    title="Float Generator",
    tags=["primitives", "float", "number", "batch", "special"],
    category="batch",
    version="1.0.0",
    classification=Classification.Special,
)
class FloatGenerator(BaseInvocation):
    """Make floats for a batch."""

    generator: FloatGeneratorField = InputField(
        description="How the floats are made", title="Generator Type", input=Input.Direct
    )

    def invoke(self, context: InvocationContext) -> FloatGeneratorOutput:
        """Refuse to run."""
        refuse(self)
