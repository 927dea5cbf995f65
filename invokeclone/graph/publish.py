"""Adds the node vocabulary to an OpenAPI document: every node, output and field class, and their unions.

Existing components of the document are preserved; the placeholders that `unions` leaves are replaced.
"""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from invokeclone.graph.invocations import registry
from invokeclone.graph.invocations.invocation import BaseInvocation
from invokeclone.graph.invocations.unions import MARK
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.graph.session.graph import Graph
from invokeclone.graph.vocabulary.hints import InputFieldJSONSchemaExtra, OutputFieldJSONSchemaExtra, UIConfigBase
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField

Schema = dict[str, Any]

_REF = "#/components/schemas/"
_EXTRA_CLASSES: tuple[type[BaseModel], ...] = (
    Graph,
    GraphExecutionState,
    ModelIdentifierField,
    InputFieldJSONSchemaExtra,
    OutputFieldJSONSchemaExtra,
    UIConfigBase,
)
"""Classes that are published even if no node uses them."""


def publish(document: Schema) -> Schema:
    """Add the vocabulary to `document` and return it, with its components sorted by name.

    Imports no nodes: call `registry.discover()` first.
    """
    nodes, outputs = registry.nodes(), registry.outputs()
    references, definitions = _schemas([*nodes.values(), *outputs.values(), *_EXTRA_CLASSES])
    for node in nodes.values():
        _finish_node(definitions[references[node]], node, references)
    for output in outputs.values():
        _finish_output(definitions[references[output]])
    definitions["InvocationOutputMap"] = _output_map(nodes, references)
    unions = {
        "nodes": _union(nodes, references),
        "outputs": _union(outputs, references),
    }
    components = document.setdefault("components", {})
    schemas = {**components.get("schemas", {}), **definitions}
    components["schemas"] = {name: schemas[name] for name in sorted(schemas)}
    _fill_events(schemas, unions)
    _replace_marks(document, unions)
    return document


def _schemas(classes: list[type[BaseModel]]) -> tuple[dict[type[BaseModel], str], dict[str, Schema]]:
    """Return the component name of each class, and the schemas of the classes and of everything they refer to."""
    pairs = [(cls, "serialization") for cls in classes]
    references, document = models_json_schema(pairs, ref_template=_REF + "{model}")  # type: ignore[arg-type]
    names = {cls: schema["$ref"].removeprefix(_REF) for (cls, _), schema in references.items()}
    return names, document.get("$defs", {})  # type: ignore[return-value]


def _finish_node(schema: Schema, node: type[BaseInvocation], references: dict[type[BaseModel], str]) -> None:
    config = node.ui_config
    schema["class"] = "invocation"
    schema["title"] = config.title or node.__name__
    schema["node_pack"] = config.node_pack
    schema["version"] = config.version
    schema["classification"] = config.classification.value
    if config.tags is not None:
        schema["tags"] = config.tags
    if config.category is not None:
        schema["category"] = config.category
    schema["output"] = {"$ref": _REF + references[node.output_class]}
    needed = [name for name in schema.get("required", []) if name not in ("type", "id")]
    schema["required"] = [*needed, "type", "id"]


def _finish_output(schema: Schema) -> None:
    schema["class"] = "output"
    schema["properties"].pop("output_meta", None)
    fields = [name for name in schema["properties"] if name != "type"]
    schema["required"] = ["output_meta", *fields, "type"]


def _output_map(nodes: dict[str, type[BaseInvocation]], references: dict[type[BaseModel], str]) -> Schema:
    """Return a schema that maps each node type to its output."""
    names = sorted(nodes)
    return {
        "type": "object",
        "properties": {name: {"$ref": _REF + references[nodes[name].output_class]} for name in names},
        "required": names,
    }


def _union(classes: dict[str, Any], references: dict[type[BaseModel], str]) -> Schema:
    """Return the union of the classes, discriminated by `type`."""
    by_type = {name: _REF + references[cls] for name, cls in classes.items()}
    return {
        "oneOf": [{"$ref": reference} for reference in sorted(set(by_type.values()))],
        "discriminator": {"propertyName": "type", "mapping": dict(sorted(by_type.items()))},
    }


def _fill_events(schemas: dict[str, Schema], unions: dict[str, Schema]) -> None:
    """Publish the node and output of invocation events, which are plain dicts in code, as the unions."""
    for name, schema in schemas.items():
        if not (name.startswith("Invocation") and name.endswith("Event")):
            continue
        for field, kind in (("invocation", "nodes"), ("result", "outputs")):
            if field in schema.get("properties", {}):
                field_schema = schema["properties"][field]
                labels = {key: field_schema[key] for key in ("title", "description") if key in field_schema}
                schema["properties"][field] = {**labels, **unions[kind]}


def _replace_marks(value: Any, unions: dict[str, Schema]) -> None:
    """Replace the placeholders by the unions, anywhere in a document."""
    if isinstance(value, dict):
        if MARK in value:
            value |= unions[value.pop(MARK)]
            return
        for inner in value.values():
            _replace_marks(inner, unions)
    elif isinstance(value, list):
        for inner in value:
            _replace_marks(inner, unions)
