"""Declaring nodes: names, versions, fields, packs."""

from typing import Any

import pytest

from invokeclone.graph.invocations import registry
from invokeclone.graph.invocations.invocation import (
    BaseInvocation,
    BaseInvocationOutput,
    InvalidFieldError,
    InvalidVersionError,
    invocation,
    invocation_output,
)
from invokeclone.graph.invocations.outputs import ImageOutput, IntegerOutput
from invokeclone.graph.publish import publish
from invokeclone.graph.vocabulary.fields import (
    ColorField,
    ImageField,
    Input,
    InputField,
    OutputField,
    WithBoard,
    WithMetadata,
)
from invokeclone.graph.vocabulary.taxonomy import Classification, ModelType

pytestmark = pytest.mark.usefixtures("own_nodes")


def declare(node_type: str = "toy", **decoration: Any) -> type[BaseInvocation]:
    @invocation(node_type, **decoration)
    class ToyInvocation(BaseInvocation, WithMetadata, WithBoard):
        """A toy."""

        image: ImageField = InputField(description="An image")
        only: int = InputField(input=Input.Connection)
        direct: ColorField = InputField(default=ColorField(r=0, g=0, b=0, a=255), input=Input.Direct)
        model: str | None = InputField(default=None, ui_model_type=ModelType.Main, ui_order=0)
        wrong: int = InputField(default=None)

        def invoke(self, context: Any) -> IntegerOutput:
            return IntegerOutput(value=self.only)

    return ToyInvocation


def test_declare_an_invocation() -> None:
    toy = declare(title="Toy", tags=["toy"], category="toys", version="1.2.3", use_cache=False)
    assert toy.get_type() == "toy"
    assert registry.get("toy") is toy
    assert toy.get_output_annotation() is IntegerOutput
    assert toy.required_inputs == (("image", False), ("only", True))
    node = toy()
    assert list(node.model_dump()) == [
        "board",
        "metadata",
        "id",
        "is_intermediate",
        "use_cache",
        "image",
        "only",
        "direct",
        "model",
        "wrong",
        "type",
    ]
    assert node.use_cache is False
    assert node.id != toy().id


def test_published_schema() -> None:
    declare(classification=Classification.Beta)
    schema = publish({})["components"]["schemas"]["ToyInvocation"]
    assert schema["node_pack"] == __name__.partition(".")[0]
    assert (schema["title"], schema["version"], schema["classification"]) == ("ToyInvocation", "1.0.0", "beta")
    assert "tags" not in schema
    assert schema["description"] == "A toy."
    assert schema["properties"]["direct"]["orig_default"] == {"r": 0, "g": 0, "b": 0, "a": 255}
    assert schema["properties"]["model"]["ui_model_type"] == ["main"]
    assert schema["properties"]["image"]["orig_required"] is True
    assert "orig_default" not in schema["properties"]["image"]


def test_duplicate_types_are_refused() -> None:
    declare()
    declare()  # the same class again, as when a pack is reloaded
    with pytest.raises(ValueError, match="already registered"):

        @invocation("toy")
        class OtherInvocation(BaseInvocation):
            def invoke(self, context: Any) -> IntegerOutput:
                return IntegerOutput(value=1)


def test_forget_pack_removes_its_nodes() -> None:
    declare()
    assert "toy" in registry.forget_pack(__name__.partition(".")[0])
    assert "toy" not in registry.nodes()
    assert "add" in registry.nodes()


@pytest.mark.parametrize("name", ["", "two words"])
def test_invalid_types_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must not be empty or contain whitespace"):
        declare(name)
    with pytest.raises(ValueError, match="must not be empty or contain whitespace"):
        invocation_output(name)


def test_invalid_versions_are_refused() -> None:
    with pytest.raises(InvalidVersionError):
        declare(version="1.0")


def test_plain_fields_are_refused() -> None:
    with pytest.raises(InvalidFieldError, match="value"):

        @invocation("toy")
        class ToyInvocation(BaseInvocation):
            value: int = 1

            def invoke(self, context: Any) -> IntegerOutput:
                return IntegerOutput(value=1)

    with pytest.raises(InvalidFieldError, match="type"):

        @invocation_output("toy_output")
        class ToyOutput(BaseInvocationOutput):
            type: str = OutputField(default="x")


def test_bad_default_is_refused() -> None:
    with pytest.raises(InvalidFieldError, match="default"):

        @invocation("toy")
        class ToyInvocation(BaseInvocation):
            value: int = InputField(default="x")

            def invoke(self, context: Any) -> IntegerOutput:
                return IntegerOutput(value=1)


def test_return_annotation_is_required() -> None:
    with pytest.raises(InvalidFieldError, match="annotate the return value"):

        @invocation("toy")
        class ToyInvocation(BaseInvocation):
            def invoke(self, context: Any):  # type: ignore[no-untyped-def]
                return IntegerOutput(value=1)


def test_string_annotations() -> None:
    @invocation("toy")
    class ToyInvocation(BaseInvocation):
        def invoke(self, context: "Any") -> "IntegerOutput":
            return IntegerOutput(value=1)

    assert ToyInvocation.output_class is IntegerOutput


def test_subclass_of_a_node() -> None:
    toy = declare()

    @invocation("toy_two", version="2.0.0")
    class ToyTwoInvocation(toy):  # type: ignore[valid-type,misc]
        more: int = InputField(default=1)

        def invoke(self, context: Any) -> ImageOutput:
            return ImageOutput(image=ImageField(image_name="x"), width=1, height=1)

    assert ToyTwoInvocation.get_type() == "toy_two"
    assert toy.get_type() == "toy"
    assert ToyTwoInvocation.required_inputs == (("image", False), ("only", True))
    assert list(ToyTwoInvocation().model_dump())[-2:] == ["more", "type"]


def test_cache_key() -> None:
    toy = declare()
    assert toy(id="a", only=1).cache_key() == toy(id="b", only=1).cache_key()
    assert toy(only=1).cache_key() != toy(only=2).cache_key()
    assert toy(only=1).cache_key() != toy(only=1, is_intermediate=True).cache_key()


def test_discover_registers_all_core_nodes() -> None:
    registry.discover()
    assert {"add", "iterate", "collect", "if", "core_metadata"} <= set(registry.nodes())
    assert {"integer_output", "if_output"} <= set(registry.outputs())
