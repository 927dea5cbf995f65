"""`AnyInvocation` and `AnyInvocationOutput`: a node or an output of any registered type.

Validation uses the registry. JSON schemas contain a placeholder, which `publish` replaces by the union.
"""

from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from invokeclone.graph.invocations import registry
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput
from invokeclone.graph.invocations.types import takes_none

MARK = "x-union-of"
"""Key of the placeholder; its value is "nodes" or "outputs"."""


class _ByType:
    """Pydantic annotation: validates with the registry and serializes by the value's own class."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def _validate(self, value: Any) -> Any:
        if self._kind == "nodes":
            if isinstance(value, BaseInvocation) and registry.nodes_in_use().get(value.get_type()) is type(value):
                return value
            _check_type(value)
            return registry.node_validator().validate_python(_without_nulls(value))
        if isinstance(value, BaseInvocationOutput):
            return value
        return registry.output_validator().validate_python(value)

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {MARK: self._kind}


def _check_type(value: Any) -> None:
    """Raise for an unavailable node type, with advice instead of pydantic's list of all types."""
    node_type = value.get("type") if isinstance(value, dict) else None
    if isinstance(node_type, str) and node_type not in registry.nodes_in_use():
        message = f"This server has no node '{node_type[:100]}'. {registry.remedy(node_type)}"
        raise PydanticCustomError("union_tag_invalid", "{message}", {"message": message, "tag": node_type[:100]})


def _without_nulls(value: Any) -> Any:
    """Return a node without nulls in fields that do not allow None: there null means the default."""
    if not isinstance(value, dict) or None not in value.values() or not isinstance(value.get("type"), str):
        return value
    fields = registry.nodes_in_use()[value["type"]].model_fields
    return {
        name: part
        for name, part in value.items()
        if part is not None or name not in fields or fields[name].is_required() or takes_none(fields[name].annotation)
    }


AnyInvocation = Annotated[BaseInvocation, _ByType("nodes")]
AnyInvocationOutput = Annotated[BaseInvocationOutput, _ByType("outputs")]
