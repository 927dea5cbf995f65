"""Creation of node and output classes from a pack's description, for graph validation and schemas in the server.

The nodes cannot be run: workers have the real classes. Values of types that a pack defines are not validated, as only
the pack's code can do that.
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
    """A pack's nodes cannot run in the server."""


def adopt(name: str, description: Description) -> list[str]:
    """Register the nodes and outputs of the pack `name`; return the node types. On a ValueError none are registered."""
    try:
        _Adoption(name).register(description)
    except (KeyError, TypeError, ValueError) as error:
        registry.forget_pack(name)
        raise ValueError(f"its nodes cannot be registered: {error}") from error
    return [str(node["type"]) for node in description["nodes"]]


class _Adoption:
    """The classes of one pack; a type that several fields share is created once."""

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

    def _annotation(self, description: Description) -> Any:  # noqa: PLR0911  (one return per kind of annotation)
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
    """A node that can only run in a worker."""

    def invoke(self, context: InvocationContext) -> BaseInvocationOutput:  # noqa: ARG002
        raise RunsInAWorker(f"{self.get_type()} can only run in a worker")


def _resolve_project_class(reference: str) -> Any:
    """Return a class of this project if its module is imported; otherwise Any."""
    module, _, name = reference.partition(":")
    if not module.startswith(PROJECT_PREFIX) or module not in sys.modules:
        return Any
    value: Any = sys.modules[module]
    for part in name.split("."):
        value = getattr(value, part, Any)
    return value
