"""Description of a pack's node and output classes as JSON, for graph validation and schemas in the server.

`adopt` creates classes from it.
"""

import enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from invokeclone.graph.invocations import registry
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput

LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "strict", "allow_inf_nan")
PLAIN = (int, float, str, bool, dict, list)
PROJECT_PREFIX = "invokeclone."
_UNCHANGED = frozenset({"id", "is_intermediate", "type"})
_MAX_DEPTH = 20

Description = dict[str, Any]


def pack(name: str) -> Description:
    """Return the description of the nodes and outputs registered by the pack `name`."""
    nodes = {type_name: cls for type_name, cls in registry.nodes().items() if _is_of(cls, name)}
    outputs = {type_name: cls for type_name, cls in registry.outputs().items() if _is_of(cls, name)}
    return {
        "nodes": [_node(type_name, cls) for type_name, cls in nodes.items()],
        "outputs": [_output(type_name, cls) for type_name, cls in outputs.items()],
    }


def _is_of(cls: type, name: str) -> bool:
    return cls.__module__.partition(".")[0] == name


def _node(type_name: str, cls: type[BaseInvocation]) -> Description:
    fields = {name: field for name, field in cls.model_fields.items() if name not in _UNCHANGED}
    if fields["use_cache"].default is BaseInvocation.model_fields["use_cache"].default:
        del fields["use_cache"]
    config = cls.ui_config
    return {
        "type": type_name,
        "name": cls.__name__,
        "doc": cls.__doc__,
        "fields": {name: _field(field) for name, field in fields.items()},
        "required_inputs": cls.required_inputs,
        "output": cls.output_class.get_type(),
        "ui": to_jsonable_python(config),
    }


def _output(type_name: str, cls: type[BaseInvocationOutput]) -> Description:
    fields = {name: field for name, field in cls.model_fields.items() if name not in {"type", "output_meta"}}
    return {
        "type": type_name,
        "name": cls.__name__,
        "doc": cls.__doc__,
        "fields": {name: _field(field) for name, field in fields.items()},
    }


def _field(field: FieldInfo) -> Description:
    default = field.get_default(call_default_factory=True, validated_data={})
    limits = {
        limit: to_jsonable_python(value, fallback=str)
        for rule in field.metadata
        for limit in LIMITS
        if (value := getattr(rule, limit, None)) is not None
    }
    described = {
        "annotation": annotation(field.annotation),
        "title": field.title,
        "description": field.description,
        "extra": to_jsonable_python(field.json_schema_extra, fallback=str)
        if isinstance(field.json_schema_extra, dict)
        else {},
        "limits": limits,
    }
    if default is not PydanticUndefined:
        described["default"] = to_jsonable_python(default, fallback=str)
    return described


def annotation(hint: Any) -> Description:  # noqa: PLR0911  (one return per kind of annotation)
    """Return an annotation as JSON; unsupported ones become Any."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is None or hint is NoneType:
        return {"kind": "none"}
    if hint in PLAIN:
        return {"kind": "plain", "name": hint.__name__}
    if origin is Annotated:
        return annotation(arguments[0])
    if origin is Literal:
        return {"kind": "literal", "values": to_jsonable_python(arguments, fallback=str)}
    if origin in (Union, UnionType):
        return {"kind": "union", "members": [annotation(member) for member in arguments]}
    if origin in (list, set, frozenset, tuple):
        elements = [element for element in arguments if element is not Ellipsis]
        return {"kind": "list", "element": annotation(elements[0] if len(set(elements)) == 1 else Any)}
    if origin is dict:
        return {"kind": "dict", "value": annotation(arguments[1] if len(arguments) > 1 else Any)}
    if isinstance(hint, type):
        return _class(hint)
    return {"kind": "any"}


def _class(cls: type) -> Description:
    reference = f"{cls.__module__}:{cls.__qualname__}"
    if cls.__module__.startswith(PROJECT_PREFIX):
        return {"kind": "ours", "place": reference}
    if issubclass(cls, enum.Enum):
        members = [[member.name, to_jsonable_python(member.value, fallback=str)] for member in cls]
        return {"kind": "enum", "name": cls.__name__, "place": reference, "members": members}
    if issubclass(cls, BaseModel):
        project_base = next((base for base in cls.__mro__ if base.__module__.startswith(PROJECT_PREFIX)), None)
        return {
            "kind": "model",
            "name": cls.__name__,
            "place": reference,
            "base": f"{project_base.__module__}:{project_base.__qualname__}" if project_base else None,
            "schema": _schema(cls),
        }
    return {"kind": "any"}


def _schema(model: type[BaseModel]) -> Description:
    """Return the model's JSON schema with all references inlined."""
    schema = model.model_json_schema(mode="serialization")
    shared = schema.pop("$defs", {})

    def inline(value: Any, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            return {}
        if isinstance(value, dict):
            if "$ref" in value:
                return inline(shared.get(str(value["$ref"]).rpartition("/")[2], {}), depth + 1)
            return {key: inline(inner, depth + 1) for key, inner in value.items()}
        return [inline(inner, depth + 1) for inner in value] if isinstance(value, list) else value

    result: Description = inline(schema, 0)
    return result
