"""The published vocabulary is the contract's, to the key; only prose is ours."""

import json
from pathlib import Path
from typing import Any

import pytest

from invokeclone.graph.publish import publish

CONTRACT = json.loads((Path(__file__).parent / "data" / "contract.json").read_text())
OURS = publish({"paths": {}})["components"]["schemas"]


def bare(value: Any, inside: str = "") -> Any:
    """Without prose, and with lists sorted whose order says nothing."""
    if isinstance(value, dict):
        return {
            key: sorted(set(inner)) if key == "required" and isinstance(inner, list) else bare(inner, key)
            for key, inner in value.items()
            if key != "discriminator" and (key != "description" or inside == "properties")
        }
    return [bare(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", CONTRACT)
def test_component(name: str) -> None:
    schema = bare(OURS[name])
    if name == "GraphExecutionState":
        schema["properties"].pop("results")
        for field in ("workflow_call_parent", "waiting_workflow_call", "waiting_workflow_call_execution"):
            schema["properties"][field].pop("default", None)
        schema["properties"]["waiting_workflow_call_child_session"].pop("default", None)
    assert schema == bare(CONTRACT[name])


def test_unions() -> None:
    nodes = OURS["Graph"]["properties"]["nodes"]["additionalProperties"]
    assert {"$ref": "#/components/schemas/AddInvocation"} in nodes["oneOf"]
    assert nodes["discriminator"]["mapping"]["add"] == "#/components/schemas/AddInvocation"
    results = OURS["GraphExecutionState"]["properties"]["results"]["additionalProperties"]
    assert {"$ref": "#/components/schemas/IntegerOutput"} in results["oneOf"]
    outputs = OURS["InvocationOutputMap"]
    assert outputs["properties"]["add"] == {"$ref": "#/components/schemas/IntegerOutput"}
    assert set(outputs["required"]) == set(outputs["properties"])


def test_components_are_sorted_and_resolve() -> None:
    assert list(OURS) == sorted(OURS)
    text = json.dumps(OURS)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(OURS)
    assert "x-union-of" not in text


def test_events_name_the_nodes() -> None:
    event = {"properties": {"invocation": {"type": "object", "title": "Invocation"}, "result": {"type": "object"}}}
    document = publish({"components": {"schemas": {"InvocationCompleteEvent": event}}})
    properties = document["components"]["schemas"]["InvocationCompleteEvent"]["properties"]
    assert {"$ref": "#/components/schemas/AddInvocation"} in properties["invocation"]["oneOf"]
    assert {"$ref": "#/components/schemas/IntegerOutput"} in properties["result"]["oneOf"]
