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

from invokeclone.custom_nodes.describe import PLAIN, PROJECT_PREFIX, Description
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
        fields = {name: self._field(field_description) for name, field_description in described["fields"].items()}
        attribute = {"field_kind": FieldKind.NodeAttribute.value}
        type_name = described["type"]
        kind = Field(default=type_name, title="type", json_schema_extra=cast("Any", attribute))
        return {**fields, "type": (Literal[type_name], kind)}

    def _field(self, description: Description) -> tuple[Any, Any]:
        texts = {key: description[key] for key in ("title", "description") if description[key] is not None}
        default = (
            {"default": description["default"], "validate_default": description["default"] is not None}
            if "default" in description
            else {}
        )
        field = Field(json_schema_extra=description["extra"], **texts, **default, **description["limits"])
        return self._annotation(description["annotation"]), field

    def _annotation(self, description: Description) -> Any:  # noqa: PLR0911  (a table, a row per kind of annotation)
        match description["kind"]:
            case "none":
                return None
            case "plain":
                return _PLAIN[description["name"]]
            case "literal":
                return Literal[tuple(description["values"])]
            case "union":
                return Union[tuple(self._annotation(member) for member in description["members"])]  # noqa: UP007  (at run time)
            case "list":
                return list[self._annotation(description["element"])]  # type: ignore[misc]
            case "dict":
                return dict[str, self._annotation(description["value"])]  # type: ignore[misc]
            case "ours":
                return _resolve_project_class(description["place"])
            case "enum" | "model":
                reference = description["place"]
                if reference not in self._types:
                    self._types[reference] = (
                        self._enum(description) if description["kind"] == "enum" else self._model(description)
                    )
                return self._types[reference]
            case _:
                return Any

    def _enum(self, description: Description) -> Any:
        return enum.Enum(
            description["name"], [(name, value) for name, value in description["members"]], module=self._pack
        )

    def _model(self, description: Description) -> Any:
        base = _resolve_project_class(description["base"]) if description["base"] else BaseModel
        if not (isinstance(base, type) and issubclass(base, BaseModel)):
            base = BaseModel
        schema = description["schema"]

        class FixedSchemaBase(base):  # type: ignore[misc, valid-type]
            model_config = ConfigDict(extra="allow", protected_namespaces=())

            @classmethod
            def __get_pydantic_json_schema__(
                cls, _schema: CoreSchema, _handler: GetJsonSchemaHandler
            ) -> JsonSchemaValue:
                return dict(schema)

        return create_model(description["name"], __base__=FixedSchemaBase, __module__=self._pack)


class _SchemaOnly(BaseInvocation):
    """A node that only a worker can run."""

    def invoke(self, context: InvocationContext) -> BaseInvocationOutput:  # noqa: ARG002
        raise RunsInAWorker(f"{self.get_type()} runs in a worker only")


def _resolve_project_class(reference: str) -> Any:
    """Return a class of this project that is imported already; anything when it isn't."""
    module, _, name = reference.partition(":")
    if not module.startswith(PROJECT_PREFIX) or module not in sys.modules:
        return Any
    value: Any = sys.modules[module]
    for part in name.split("."):
        value = getattr(value, part, Any)
    return value
