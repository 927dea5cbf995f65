"""Base classes of nodes and outputs, and the decorators that name and register them.

A node declares its inputs with `InputField`, returns an output class from `invoke`, and reaches the application through
the context.
"""

import inspect
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeVar, Union
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations import registry
from invokeclone.graph.vocabulary.hints import FieldKind, Input, UIConfigBase
from invokeclone.graph.vocabulary.taxonomy import Classification

__all__ = [
    "BaseInvocation",
    "BaseInvocationOutput",
    "Bottleneck",
    "Classification",
    "InvalidFieldError",
    "InvalidVersionError",
    "MissingInputException",
    "NodeError",
    "RequiredConnectionException",
    "invocation",
    "invocation_output",
]

_TYPE = re.compile(r"^\S+$")
_VERSION = re.compile(r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$")
_RESERVED = {"type"}
_ATTRIBUTE = {"field_kind": FieldKind.NodeAttribute.value}


class InvalidFieldError(TypeError):
    """A node class declares a field incorrectly."""


class InvalidVersionError(ValueError):
    """The version of a node class is not a semantic version."""


class NodeError(ValueError):
    """A node cannot run with its inputs."""


class RequiredConnectionException(NodeError):
    """An input that requires a connection has no value."""

    def __init__(self, node_type: str, field_name: str) -> None:
        super().__init__(f"Node type {node_type} requires a connection to its input {field_name}")


class MissingInputException(NodeError):
    """A required input has no value."""

    def __init__(self, node_type: str, field_name: str) -> None:
        super().__init__(f"Node type {node_type} requires a value or a connection for its input {field_name}")


class Bottleneck(StrEnum):
    """The resource that limits a node's run time."""

    Network = "network"
    GPU = "gpu"


class BaseInvocationOutput(BaseModel):
    """Base class of outputs; subclasses are registered with `invocation_output`."""

    model_config = ConfigDict(protected_namespaces=(), validate_assignment=True, defer_build=True)

    output_meta: dict[str, JsonValue] | None = Field(
        default=None,
        description="Additional information about the output",
        json_schema_extra=dict(_ATTRIBUTE),
    )

    @classmethod
    def get_type(cls) -> str:
        """Return the output type, the value of `type`."""
        return str(cls.__pydantic_fields__["type"].default)  # `model_fields` takes four times as long


class BaseInvocation(BaseModel, ABC):
    """Base class of nodes; subclasses are registered with `invocation`."""

    model_config = ConfigDict(
        protected_namespaces=(), validate_assignment=True, coerce_numbers_to_str=True, defer_build=True
    )

    ui_config: ClassVar[UIConfigBase]
    bottleneck: ClassVar[Bottleneck] = Bottleneck.GPU
    output_class: ClassVar[type[BaseInvocationOutput]]
    required_inputs: ClassVar[tuple[tuple[str, bool], ...]] = ()
    """Names of the inputs that must have a value when the node runs, and whether only an edge can supply it."""

    id: str = Field(
        default_factory=lambda: str(uuid4()),
        description="Id of the node, unique in its graph",
        json_schema_extra=dict(_ATTRIBUTE),
    )
    is_intermediate: bool = Field(
        default=False,
        description="Whether the node's result is intermediate and not shown in the gallery",
        json_schema_extra={
            "ui_type": "IsIntermediate",
            "field_kind": FieldKind.NodeAttribute.value,
            "input": Input.Direct.value,
            "orig_required": True,
            "ui_hidden": False,
        },
    )
    use_cache: bool = Field(
        default=True, description="Whether a cached output may be used", json_schema_extra=dict(_ATTRIBUTE)
    )

    @abstractmethod
    def invoke(self, context: InvocationContext) -> BaseInvocationOutput:
        """Run the node and return its output."""

    @classmethod
    def get_type(cls) -> str:
        """Return the node type, the value of `type`."""
        return str(cls.__pydantic_fields__["type"].default)  # `model_fields` takes four times as long

    @classmethod
    def get_output_annotation(cls) -> type[BaseInvocationOutput]:
        """Return the output class of `invoke`."""
        return cls.output_class

    def check_required(self) -> None:
        """Raise RequiredConnectionException or MissingInputException if a required input has no value."""
        for name, connection_only in self.required_inputs:
            if getattr(self, name) is None:
                if connection_only:
                    raise RequiredConnectionException(self.get_type(), name)
                raise MissingInputException(self.get_type(), name)

    def invoke_checked(self, context: InvocationContext) -> BaseInvocationOutput:
        """Run the node after `check_required`."""
        self.check_required()
        return self.invoke(context)

    def cache_key(self) -> int:
        """Return a hash of all fields but the id; valid only within this process."""
        return hash(self.model_dump_json(exclude={"id"}))


Node = TypeVar("Node", bound=BaseInvocation)
Output = TypeVar("Output", bound=BaseInvocationOutput)


def _extra(field: FieldInfo) -> dict[str, Any]:
    """Return the schema extras of a field."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _allows_none(annotation: Any) -> bool:
    """Return whether an annotation allows None."""
    return annotation is None or type(None) in getattr(annotation, "__args__", ())


def _nullable(field: FieldInfo) -> FieldInfo:
    """Return a copy of the field that allows None, its default."""
    field = copy(field)
    if not _allows_none(field.annotation):
        field.annotation = Union[field.annotation, None]  # type: ignore[assignment]  # noqa: UP007 - at run time
    field.default = None
    return field


def _check_fields(cls: type[BaseModel], kinds: set[str]) -> None:
    """Raise InvalidFieldError for a reserved field name, or a field not declared with InputField or OutputField."""
    for name, field in cls.model_fields.items():
        if name in _RESERVED and name in inspect.get_annotations(cls):
            message = f"{cls.__name__}: the field name {name!r} is reserved"
            raise InvalidFieldError(message)
        kind = _extra(field).get("field_kind")
        if kind not in kinds:
            message = f"{cls.__name__}.{name}: declare it with InputField or OutputField"
            raise InvalidFieldError(message)


def _check_default(cls: type[BaseModel], name: str, field: FieldInfo) -> None:
    """Raise InvalidFieldError if a field's default does not match its annotation."""
    default = field.get_default(call_default_factory=True, validated_data={})
    if default is PydanticUndefined or default is None:
        return
    try:
        config = ConfigDict(arbitrary_types_allowed=True)
        TypeAdapter[Any](list[field.annotation], config=config).validate_python([default])  # type: ignore[name-defined]
    except ValidationError as error:
        message = f"{cls.__name__}.{name}: the default {default!r} does not match the annotation"
        raise InvalidFieldError(message) from error


def _prepare_inputs(cls: type[BaseInvocation]) -> None:
    """Make the inputs optional in graphs and record in `required_inputs` which of them a run requires."""
    required: list[tuple[str, bool]] = []
    fields = cls.__pydantic_fields__
    for name, field in list(fields.items()):
        extra = _extra(field)
        if extra.get("field_kind") != FieldKind.Input.value:
            continue
        source = extra["input"]
        if extra["orig_required"]:
            required.append((name, source == Input.Connection.value))
            if source != Input.Direct.value:
                fields[name] = _nullable(field)
        elif field.default is None and field.annotation is not Any:
            fields[name] = _nullable(field)
        elif not cls.__module__.startswith("invokeclone."):
            _check_default(cls, name, field)
    cls.required_inputs = tuple(required)


def _return_class(cls: type[BaseInvocation]) -> type[BaseInvocationOutput]:
    """Return the output class from the return annotation of `invoke`."""
    annotation = inspect.signature(cls.invoke).return_annotation
    if isinstance(annotation, str):
        annotation = eval(annotation, dict(vars(sys.modules[cls.invoke.__module__])))  # noqa: S307 - an annotation
    if not (inspect.isclass(annotation) and issubclass(annotation, BaseInvocationOutput)):
        message = f"{cls.__name__}.invoke: annotate the return value with an output class"
        raise InvalidFieldError(message)
    return annotation


def _set_type(cls: type[BaseModel], type_name: str) -> None:
    """Add the discriminator `type` to the class as its last field."""
    annotation = Literal[type_name]  # type: ignore[valid-type]
    cls.__annotations__ = {**inspect.get_annotations(cls), "type": annotation}
    fields = cls.__pydantic_fields__
    fields.pop("type", None)
    field = FieldInfo.from_annotation(annotation)
    field.default = type_name
    field.title = "type"
    field.json_schema_extra = dict(_ATTRIBUTE)
    fields["type"] = field


def _node_pack(cls: type) -> str:
    """Return the node pack of a node class: its top-level package, or `invokeai` for built-in nodes."""
    package = cls.__module__.partition(".")[0]
    return "invokeai" if package == "invokeclone" else package


def invocation(
    invocation_type: str,
    title: str | None = None,
    tags: list[str] | None = None,
    category: str | None = None,
    version: str | None = None,
    use_cache: bool | None = True,
    classification: Classification = Classification.Stable,
    bottleneck: Bottleneck = Bottleneck.GPU,
) -> Callable[[type[Node]], type[Node]]:
    """Register a node class under a node type.

    Raises InvalidFieldError, InvalidVersionError, or ValueError for a type that is taken or contains whitespace.
    """
    if not _TYPE.match(invocation_type):
        message = f"{invocation_type!r} is not a valid node type: it must not be empty or contain whitespace"
        raise ValueError(message)
    if version is not None and not _VERSION.match(version):
        message = f"{invocation_type}: {version!r} is not a semantic version"
        raise InvalidVersionError(message)

    def decorate(cls: type[Node]) -> type[Node]:
        _check_fields(cls, {"input", "internal", "node_attribute"})
        _prepare_inputs(cls)
        if use_cache is not None and use_cache is not cls.model_fields["use_cache"].default:
            field = copy(cls.model_fields["use_cache"])
            field.default = use_cache
            cls.__pydantic_fields__["use_cache"] = field
        cls.output_class = _return_class(cls)
        cls.bottleneck = bottleneck
        cls.ui_config = UIConfigBase(
            tags=tags,
            title=title,
            category=category,
            version=version or "1.0.0",
            node_pack=_node_pack(cls),
            classification=classification,
        )
        _set_type(cls, invocation_type)
        registry.register_node(invocation_type, cls)
        return cls

    return decorate


def invocation_output(output_type: str) -> Callable[[type[Output]], type[Output]]:
    """Register an output class under an output type."""
    if not _TYPE.match(output_type):
        message = f"{output_type!r} is not a valid output type: it must not be empty or contain whitespace"
        raise ValueError(message)

    def decorate(cls: type[Output]) -> type[Output]:
        _check_fields(cls, {"output", "node_attribute"})
        _set_type(cls, output_type)
        registry.register_output(output_type, cls)
        return cls

    return decorate
