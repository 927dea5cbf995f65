"""Batch nodes of the workflow editor. Clients convert them to batch data before they enqueue, so they are never run."""

from typing import Any, Literal, NoReturn

from pydantic import BaseModel

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation_output
from invokeclone.graph.invocations.node_factory import make_node
from invokeclone.graph.invocations.outputs import FloatOutput, ImageOutput, IntegerOutput, StringOutput
from invokeclone.graph.vocabulary.fields import ImageField, Input, InputField, OutputField
from invokeclone.graph.vocabulary.taxonomy import Classification

BATCH_GROUP_IDS = Literal["None", "Group 1", "Group 2", "Group 3", "Group 4", "Group 5"]


class NotExecutableNodeError(Exception):
    """The node only exists for the editor and cannot be run."""


def refuse(node: BaseInvocation, _context: InvocationContext) -> NoReturn:
    """Raise NotExecutableNodeError for a node."""
    message = f"{type(node).__name__} cannot be run: the client must convert it to batch data before enqueuing"
    raise NotExecutableNodeError(message)


class ImageGeneratorField(BaseModel):
    """Settings of the editor's image generator."""


class StringGeneratorField(BaseModel):
    """Settings of the editor's string generator."""


class IntegerGeneratorField(BaseModel):
    """Settings of the editor's integer generator."""


class FloatGeneratorField(BaseModel):
    """Settings of the editor's float generator."""


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


def _declaration(kind: str, part: str, *tags: str) -> dict[str, Any]:
    return {
        "title": f"{kind.capitalize()} {part}",
        "tags": ["primitives", *tags, "batch", "special"],
        "category": "batch",
        "version": "1.0.0",
        "classification": Classification.Special,
    }


def _batch(kind: str, item: Any, output: type[BaseInvocationOutput], *tags: str) -> type[BaseInvocation]:
    """Return the batch node for one kind of values."""
    group = InputField(
        default="None",
        description="Batches of one group are zipped; groups are multiplied",
        title="Batch Group",
        input=Input.Direct,
    )
    return make_node(
        f"{kind.capitalize()}BatchInvocation",
        f"{kind}_batch",
        f"Run a workflow once for each {kind}.",
        {
            "batch_group_id": (BATCH_GROUP_IDS, group),
            f"{kind}s": (list[item], InputField(min_length=1, description=f"The {kind}s")),
        },
        refuse,
        output,
        module=__name__,
        **_declaration(kind, "Batch", *tags),
    )


def _generator(
    kind: str, field: type[BaseModel], output: type[BaseInvocationOutput], *tags: str
) -> type[BaseInvocation]:
    """Return the generator node for one kind of values."""
    declared = InputField(description=f"How the {kind}s are generated", title="Generator Type", input=Input.Direct)
    return make_node(
        f"{kind.capitalize()}Generator",
        f"{kind}_generator",
        f"Generate {kind}s for a batch.",
        {"generator": (field, declared)},
        refuse,
        output,
        module=__name__,
        **_declaration(kind, "Generator", *tags),
    )


ImageBatchInvocation = _batch("image", ImageField, ImageOutput, "image")
StringBatchInvocation = _batch("string", str, StringOutput, "string")
IntegerBatchInvocation = _batch("integer", int, IntegerOutput, "integer", "number")
FloatBatchInvocation = _batch("float", float, FloatOutput, "float", "number")
ImageGenerator = _generator("image", ImageGeneratorField, ImageGeneratorOutput, "board", "image")
StringGenerator = _generator("string", StringGeneratorField, StringGeneratorOutput, "string", "number")
IntegerGenerator = _generator("integer", IntegerGeneratorField, IntegerGeneratorOutput, "int", "number")
FloatGenerator = _generator("float", FloatGeneratorField, FloatGeneratorOutput, "float", "number")
