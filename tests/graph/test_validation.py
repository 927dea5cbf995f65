"""Nodes by type, extra keys, and every rule of a graph's form."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from invokeclone.graph.invocations import registry, unsupported_nodes
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.graph.session.graph import (
    CyclicalGraphError,
    DuplicateNodeIdError,
    Edge,
    EdgeConnection,
    Graph,
    InvalidEdgeError,
    NodeAlreadyInGraphError,
    NodeFieldNotFoundError,
    NodeIdMismatchError,
    NodeNotFoundError,
)

NODE_TYPES = set((Path(__file__).parent / "data" / "node_types.txt").read_text().split())
"""The node types of InvokeAI 6.8.1 and 6.14.2."""

Make = Callable[..., dict[str, Any]]


class Body(BaseModel):
    """As a route has it."""

    graph: Graph


def errors(data: Any) -> list[Any]:
    with pytest.raises(ValidationError) as caught:
        Body.model_validate({"graph": data})
    return caught.value.errors(include_url=False)


def test_unknown_type(graph: Make) -> None:
    (error,) = errors(graph({"n": "no_such_node"}))
    assert error["type"] == "union_tag_invalid"
    assert error["loc"] == ("graph", "nodes", "n")
    assert error["ctx"]["tag"] == "no_such_node"


def test_unsupported_invokeai_node_types_are_explained(graph: Make) -> None:
    (error,) = errors(graph({"n": "grounding_dino"}))
    assert "needs a segmentation model, which this version does not support yet; draw the mask" in error["msg"]
    (error,) = errors(graph({"n": "wan_denoise"}))
    assert "needs Wan" in error["msg"]
    (error,) = errors(graph({"n": "krea2_denoise"}))
    assert "needs Krea-2" in error["msg"]


def test_every_invokeai_node_type_is_registered_or_listed_as_unsupported() -> None:
    node_types, missing = set(registry.nodes()), set(unsupported_nodes.TYPES)
    assert not missing & node_types, "no longer absent: take it out of the table"
    assert missing | {name for name in node_types if name in NODE_TYPES} == NODE_TYPES


def test_missing_type() -> None:
    (error,) = errors({"nodes": {"n": {"id": "n"}}})
    assert (error["type"], error["loc"]) == ("union_tag_not_found", ("graph", "nodes", "n"))


def test_invalid_field(graph: Make) -> None:
    (error,) = errors(graph({"n": {"type": "add", "a": "x"}}))
    assert error["type"] == "int_parsing"
    assert error["loc"] == ("graph", "nodes", "n", "add", "a")


def test_null_gives_the_default_of_a_non_nullable_field(graph: Make) -> None:
    nulls = {"type": "integer_math", "a": None, "b": 2, "operation": None, "use_cache": None}
    node = Graph.model_validate(graph({"n": nulls})).nodes["n"]
    assert node.model_dump(include={"a", "b", "operation", "use_cache"}) == {
        "a": 1, "b": 2, "operation": "ADD", "use_cache": True
    }  # fmt: skip
    (error,) = errors(graph({"n": {"type": ["add"], "a": None}}))
    assert error["type"] == "union_tag_invalid"


def test_invalid_nested_field(graph: Make) -> None:
    (error,) = errors(graph({"n": {"type": "color", "color": {"r": 256, "g": 0, "b": 0, "a": 0}}}))
    assert error["loc"] == ("graph", "nodes", "n", "color", "color", "r")


def test_a_direct_input_without_default_is_required(graph: Make) -> None:
    (error,) = errors(graph({"n": "float_generator"}))
    assert (error["type"], error["loc"][-1]) == ("missing", "generator")


def test_other_required_inputs_may_be_absent(graph: Make) -> None:
    assert Graph.model_validate(graph({"n": "dynamic_prompt"})).nodes["n"].model_dump()["prompt"] is None


def test_unknown_keys_are_dropped_except_in_core_metadata(graph: Make) -> None:
    parsed = Graph.model_validate(graph({"n": {"type": "add", "x": 1}, "m": {"type": "core_metadata", "mine": 2}}))
    assert "x" not in parsed.nodes["n"].model_dump()
    assert parsed.nodes["m"].model_dump()["mine"] == 2


def test_numbers_become_strings(graph: Make) -> None:
    parsed = Graph.model_validate(graph({"n": {"type": "string", "value": 7}}))
    assert parsed.nodes["n"].model_dump()["value"] == "7"


@pytest.fixture
def restricted() -> Iterator[None]:
    registry.restrict(allow_nodes=["add", "sub"], deny_nodes=["sub"])
    yield
    registry.restrict()


@pytest.mark.usefixtures("restricted")
def test_allowed_and_denied_nodes(graph: Make) -> None:
    Graph.model_validate(graph({"n": "add"}))
    for other in ("sub", "mul"):
        assert errors(graph({"n": other}))[0]["type"] == "union_tag_invalid"
    with pytest.raises(KeyError):
        registry.get("sub")
    assert list(registry.nodes()) == ["add"]


BROKEN: list[tuple[type[ValueError], dict[str, Any], list[str]]] = [
    (NodeNotFoundError, {"a": "add"}, ["x.value > a.a"]),
    (NodeNotFoundError, {"a": "add"}, ["a.value > x.a"]),
    (NodeFieldNotFoundError, {"a": "add", "b": "add"}, ["a.sum > b.a"]),
    (NodeFieldNotFoundError, {"a": "add", "b": "add"}, ["a.value > b.c"]),
    (NodeFieldNotFoundError, {"a": "add", "b": "add"}, ["a.value > b.saved_workflow_input::n::f"]),
    (CyclicalGraphError, {"a": "add", "b": "add"}, ["a.value > b.a", "b.value > a.a"]),
    (CyclicalGraphError, {"a": "add"}, ["a.value > a.a"]),
    (InvalidEdgeError, {"a": "float", "b": "add"}, ["a.value > b.a"]),
    (InvalidEdgeError, {"a": "boolean", "b": "string"}, ["a.value > b.value"]),
    (InvalidEdgeError, {"i": "iterate"}, []),
    (
        InvalidEdgeError,
        {"r": "range", "q": "range", "i": "iterate"},
        ["r.collection > i.collection", "q.collection > i.collection"],
    ),
    (InvalidEdgeError, {"a": "add", "i": "iterate"}, ["a.value > i.collection"]),
    (
        InvalidEdgeError,
        {"r": "range", "i": "iterate", "b": "boolean"},
        ["r.collection > i.collection", "i.item > b.value"],
    ),
    (InvalidEdgeError, {"c": "collect"}, []),
    (InvalidEdgeError, {"c": "collect", "a": "add", "s": "string"}, ["a.value > c.item", "s.value > c.item"]),
    (InvalidEdgeError, {"c": "collect", "a": "add"}, ["a.value > c.collection"]),
    (InvalidEdgeError, {"c": "collect", "a": "add", "b": "add"}, ["a.value > c.item", "c.collection > b.a"]),
    (
        InvalidEdgeError,
        {"c": "collect", "a": "add", "b": "string_collection"},
        ["a.value > c.item", "c.collection > b.collection"],
    ),
    (
        InvalidEdgeError,
        {"r": "range", "i": "iterate", "c": "collect", "b": "integer_collection"},
        ["r.collection > i.collection", "i.item > c.item", "c.collection > b.collection"],
    ),
    (
        InvalidEdgeError,
        {"a": "string", "c": "collect", "d": "collect", "b": "integer_collection"},
        ["a.value > c.item", "c.collection > d.collection", "d.collection > b.collection"],
    ),
    (
        InvalidEdgeError,
        {"a": "string", "c": "collect", "i": "iterate", "b": "add"},
        ["a.value > c.item", "c.collection > i.collection", "i.item > b.a"],
    ),
]


@pytest.mark.parametrize(("kind", "nodes", "edges"), BROKEN)
def test_invalid_graphs_are_refused(
    kind: type[ValueError], nodes: dict[str, Any], edges: list[str], graph: Make
) -> None:
    parsed = Graph.model_validate(graph(nodes, edges))
    with pytest.raises(kind):
        parsed.validate_self()
    with pytest.raises(ValidationError) as caught:
        GraphExecutionState(graph=parsed)
    (error,) = caught.value.errors()
    assert (error["type"], error["loc"]) == ("value_error", ("graph",))


WHOLE: list[tuple[dict[str, Any], list[str]]] = [
    ({"a": "integer", "b": "float"}, ["a.value > b.value"]),
    ({"a": "integer", "b": "string"}, ["a.value > b.value"]),
    ({"a": "float", "b": "string"}, ["a.value > b.value"]),
    ({"a": "boolean", "b": "integer"}, ["a.value > b.value"]),
    ({"a": "integer", "b": "integer_collection"}, ["a.value > b.collection"]),
    ({"a": "integer_collection", "b": "integer"}, ["a.collection > b.value"]),
    ({"a": "string", "b": "dynamic_prompt"}, ["a.value > b.prompt"]),
    ({"a": "add", "b": "add"}, ["a.value > b.a", "a.value > b.a"]),
    ({"a": "add", "b": "metadata_item"}, ["a.value > b.value"]),
    (
        {"r": "range", "c": "collect", "a": "add", "b": "integer_collection"},
        ["r.collection > c.collection", "a.value > c.item", "c.collection > b.collection"],
    ),
    ({"a": "integer", "b": "boolean", "c": "collect"}, ["a.value > c.item", "b.value > c.item"]),
    ({"a": "integer", "w": "call_saved_workflow"}, ["a.value > w.saved_workflow_input::n::f"]),
]


@pytest.mark.parametrize(("nodes", "edges"), WHOLE)
def test_valid_graphs_are_accepted(nodes: dict[str, Any], edges: list[str], graph: Make) -> None:
    GraphExecutionState(graph=graph(nodes, edges))


def test_ids(graph: Make) -> None:
    data = graph({"a": "add", "b": "add"})
    data["nodes"]["a"]["id"] = "c"
    with pytest.raises(NodeIdMismatchError):
        Graph.model_validate(data).validate_self()
    data["nodes"]["a"]["id"] = "b"
    with pytest.raises(DuplicateNodeIdError):
        Graph.model_validate(data).validate_self()


def edge(source: str, source_field: str, destination: str, field: str) -> Edge:
    ends = (EdgeConnection(node_id=source, field=source_field), EdgeConnection(node_id=destination, field=field))
    return Edge(source=ends[0], destination=ends[1])


def test_building_a_graph(graph: Make) -> None:
    parsed = Graph.model_validate(graph({"a": "add", "b": "add", "c": "collect"}))
    with pytest.raises(NodeAlreadyInGraphError):
        parsed.add_node(parsed.nodes["a"])
    first = edge("a", "value", "b", "a")
    parsed.add_edge(first)
    for again in (first, edge("a", "value", "b", "a"), edge("b", "value", "a", "a")):
        with pytest.raises(ValueError, match=r"already|cycles"):
            parsed.add_edge(again)
    parsed.add_edge(edge("a", "value", "c", "item"))
    parsed.add_edge(edge("b", "value", "c", "item"))
    assert len(parsed.edges) == 3
    parsed.delete_edge(first)
    parsed.delete_node("b")
    assert [str(link) for link in parsed.edges] == ["a.value -> c.item"]
    assert not parsed.has_node("b")
    with pytest.raises(NodeNotFoundError):
        parsed.get_node("b")
    assert hash(first) == hash(edge("a", "value", "b", "a"))


def test_unknown_node_errors_suggest_a_node_pack(graph: Make) -> None:
    (error,) = errors(graph({"n": "infill_nothing"}))
    assert error["msg"].startswith("This server has no node 'infill_nothing'. Install the node pack")
    assert "infill_cv2" in error["msg"]
    assert len(errors(graph({"n": "x" * 10_000}))[0]["msg"]) < 300


@pytest.mark.usefixtures("restricted")
def test_a_disabled_node_error_names_the_setting(graph: Make) -> None:
    assert "allow_nodes" in errors(graph({"n": "sub"}))[0]["msg"]
