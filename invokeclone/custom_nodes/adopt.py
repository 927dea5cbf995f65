"""Classes made of a pack's description: they check graphs and are published like any node's, and can't be run.

The server registers these; workers have the real ones. A type that a pack defines itself is taken as it comes: what it must be
like is known only to the pack.
"""

import enum
import sys
from typing import Any, Literal, Union, cast

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from invokeclone.custom_nodes.describe import OWN, PLAIN, Description
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations import registry
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput
from invokeclone.graph.vocabulary.hints import FieldKind, UIConfigBase

_PLAIN = {kind.__name__: kind for kind in PLAIN}


class RunsInAWorker(RuntimeError):
    """The server can't run a pack's nodes."""


def adopt(name: str, description: Description) -> list[str]:
    """Register the nodes and outputs of the pack `name`; return the node types. Raises ValueError with none registered."""
    try:
        _Adoption(name).register(description)
    except (KeyError, TypeError, ValueError) as error:
        registry.forget_pack(name)
        raise ValueError(f"its nodes can't be taken over: {error}") from error
    return [str(node["type"]) for node in description["nodes"]]


class _Adoption:
    """One pack's classes; a type that several fields share is made once."""

    def __init__(self, pack: str) -> None:
        self._pack = pack
        self._types: dict[str, Any] = {}

    def register(self, description: Description) -> None:
        for output in description["outputs"]:
            registry.register_output(output["type"], self._output(output))
        for node in description["nodes"]:
            registry.register_node(node["type"], self._node(node))

    def _output(self, described: Description) -> type[BaseInvocationOutput]:
        return create_model(
            described["name"],
            __base__=BaseInvocationOutput,
            __module__=self._pack,
            __doc__=described["doc"],
            **self._fields(described),
        )

    def _node(self, described: Description) -> type[BaseInvocation]:
        node = create_model(
            described["name"],
            __base__=_SchemaOnly,
            __module__=self._pack,
            __doc__=described["doc"],
            **self._fields(described),
        )
        node.output_class = registry.outputs()[described["output"]]
        node.ui_config = UIConfigBase.model_validate(described["ui"])
        node.required_inputs = tuple((str(name), bool(only)) for name, only in described["required_inputs"])
        return node

    def _fields(self, described: Description) -> Any:
        fields = {name: self._field(told) for name, told in described["fields"].items()}
        attribute = {"field_kind": FieldKind.NodeAttribute.value}
        word = described["type"]
        kind = Field(default=word, title="type", json_schema_extra=cast("Any", attribute))
        return {**fields, "type": (Literal[word], kind)}

    def _field(self, told: Description) -> tuple[Any, Any]:
        known = {key: told[key] for key in ("title", "description") if told[key] is not None}
        default = (
            {"default": told["default"], "validate_default": told["default"] is not None} if "default" in told else {}
        )
        field = Field(json_schema_extra=told["extra"], **known, **default, **told["limits"])
        return self._annotation(told["annotation"]), field

    def _annotation(self, told: Description) -> Any:  # noqa: PLR0911  (a table, a row per kind of annotation)
        match told["kind"]:
            case "none":
                return None
            case "plain":
                return _PLAIN[told["name"]]
            case "literal":
                return Literal[tuple(told["values"])]
            case "union":
                return Union[tuple(self._annotation(member) for member in told["members"])]  # noqa: UP007  (at run time)
            case "list":
                return list[self._annotation(told["element"])]  # type: ignore[misc]
            case "dict":
                return dict[str, self._annotation(told["value"])]  # type: ignore[misc]
            case "ours":
                return _ours(told["place"])
            case "enum" | "model":
                place = told["place"]
                if place not in self._types:
                    self._types[place] = self._enum(told) if told["kind"] == "enum" else self._model(told)
                return self._types[place]
            case _:
                return Any

    def _enum(self, told: Description) -> Any:
        return enum.Enum(told["name"], [(name, value) for name, value in told["members"]], module=self._pack)

    def _model(self, told: Description) -> Any:
        base = _ours(told["base"]) if told["base"] else BaseModel
        if not (isinstance(base, type) and issubclass(base, BaseModel)):
            base = BaseModel
        schema = told["schema"]

        class AsToldBase(base):  # type: ignore[misc, valid-type]
            model_config = ConfigDict(extra="allow", protected_namespaces=())

            @classmethod
            def __get_pydantic_json_schema__(
                cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler
            ) -> JsonSchemaValue:
                return dict(schema)

        return create_model(told["name"], __base__=AsToldBase, __module__=self._pack)


class _SchemaOnly(BaseInvocation):
    """A node that only a worker can run."""

    def invoke(self, context: InvocationContext) -> BaseInvocationOutput:  # noqa: ARG002
        raise RunsInAWorker(f"{self.get_type()} runs in a worker only")


def _ours(place: str) -> Any:
    """Return a class of this project that is imported already; anything when it isn't."""
    module, _, name = place.partition(":")
    if not module.startswith(OWN) or module not in sys.modules:
        return Any
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part, Any)
    return found
