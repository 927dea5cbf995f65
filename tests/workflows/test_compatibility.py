"""Which workflows a graph may call, and the graph behind a drawing."""

from typing import Any

import pytest

from invokeclone.graph.session.graph import Graph
from invokeclone.graph.session.rules import DYNAMIC_INPUT
from invokeclone.queue.calls import sessions
from invokeclone.workflows import compatibility, conversion
from invokeclone.workflows.schemas import WorkflowWithoutID
from tests.workflows.drawing import RETURNING, RETURNS, callable_workflow, connector, edge, form, node, workflow


def reason(sent: dict[str, Any], capacity: int = 100) -> str:
    judgement = compatibility.judge(WorkflowWithoutID.model_validate(sent), capacity)
    assert judgement.is_callable == (judgement.reason == "ok")
    assert judgement.is_callable == (judgement.message is None)
    return judgement.reason.value


def with_nodes(*nodes: Any, edges: Any = (), **fields: Any) -> dict[str, Any]:
    return callable_workflow(nodes=[*RETURNING, *nodes], edges=[*RETURNS, *edges], **fields)


def test_callable_workflow_is_compatible() -> None:
    assert reason(callable_workflow()) == "ok"


def test_exactly_one_return_node_is_required() -> None:
    assert reason(workflow()) == "missing_workflow_return"
    assert reason(with_nodes(node("again", "workflow_return"))) == "multiple_workflow_return"
    notes = {"id": "n", "type": "notes", "data": {"type": "workflow_return"}}
    assert reason(with_nodes(notes)) == "ok"


@pytest.mark.parametrize("node_type", ["nothing_of_this_name", "image_generator"])
def test_nodes_that_cannot_run(node_type: str) -> None:
    target = node("add", "add", b=1)
    drawn = with_nodes(node("g", node_type), target, edges=[edge("g.images", "add.a")])
    assert reason(drawn) == "unsupported_node"


@pytest.mark.parametrize(
    ("nodes", "edges"),
    [
        ([{"id": 1}], []),
        ([{"id": "x", "type": "invocation", "data": {}}], []),
        ([{"id": "x", "type": "invocation", "data": {"type": "add", "inputs": {"a": 1}}}], []),
        ([], [{"type": "default"}]),
        ([], [edge("i.nothing", "v.value")]),
        ([], [edge("nobody.value", "v.value")]),
        ([], [edge("i.value", "i.value")]),
        ([node("s", "string"), node("m", "add")], [edge("s.value", "m.a")]),
        ([node("it", "iterate")], []),
    ],
)
def test_invalid_workflow_graphs_are_incompatible(nodes: Any, edges: Any) -> None:
    assert reason(with_nodes(*nodes, edges=edges)) == "invalid_graph"


def test_invalid_or_missing_inputs_are_incompatible() -> None:
    assert reason(with_nodes(node("m", "add", a="many"))) == "invalid_inputs"
    missing = node("p", "img_resize", image=..., width=8)
    assert reason(with_nodes(missing)) == "invalid_inputs"
    assert reason(with_nodes(missing, form=form(("p", "image")))) == "ok"
    exposed = {"exposedFields": [{"nodeId": "p", "fieldName": "image"}]}
    assert reason(with_nodes(missing, **exposed)) == "ok"
    assert reason(with_nodes(missing, **exposed, form=form(("p", "width")))) == "invalid_inputs"


def batch(values: Any = ..., group: str = "None", name: str = "b") -> list[dict[str, Any]]:
    return [node(name, "integer_batch", integers=values, batch_group_id=group), node(f"{name}+", "add", a=...)]


def edge_into_add(name: str = "b") -> dict[str, Any]:
    return edge(f"{name}.value", f"{name}+.a")


def test_batches_multiply_and_grouped_batches_are_zipped() -> None:
    assert reason(with_nodes(*batch([1, 2]), edges=[edge_into_add()]), capacity=2) == "ok"
    assert reason(with_nodes(*batch([1, 2]), edges=[edge_into_add()]), capacity=1) == "exceeds_capacity"
    two = [*batch([1, 2, 3]), *batch([4, 5, 6], name="c")]
    assert reason(with_nodes(*two, edges=[edge_into_add(), edge_into_add("c")]), capacity=9) == "ok"
    assert reason(with_nodes(*two, edges=[edge_into_add(), edge_into_add("c")]), capacity=8) == "exceeds_capacity"
    together = [*batch([1, 2, 3], "Group 1"), *batch([4, 5, 6], "Group 1", "c")]
    assert reason(with_nodes(*together, edges=[edge_into_add(), edge_into_add("c")]), capacity=3) == "ok"
    unequal = [*batch([1, 2, 3], "Group 1"), *batch([4, 5], "Group 1", "c")]
    assert reason(with_nodes(*unequal, edges=[edge_into_add(), edge_into_add("c")])) == "unsupported_batch_input"


def test_unsupported_batches_are_incompatible() -> None:
    assert reason(with_nodes(*batch(), edges=[edge_into_add()])) == "unsupported_batch_input"
    assert reason(with_nodes(*batch([]), edges=[edge_into_add()])) == "unsupported_batch_input"
    assert reason(with_nodes(*batch(), edges=[edge_into_add()], form=form(("b", "integers")))) == "ok"
    assert reason(with_nodes(*batch())) == "ok"  # nothing comes of it
    from_node = [node("r", "range", start=0, stop=2), edge("r.collection", "b.integers")]
    drawn = with_nodes(*batch(), from_node[0], edges=[edge_into_add(), from_node[1]])
    assert reason(drawn) == "unsupported_batch_input"
    assert reason(with_nodes(*batch(["x"]), edges=[edge_into_add()])) == "invalid_inputs"
    image = node("p", "image_batch", images=[{"image_name": "a.png"}])
    drawn = with_nodes(image, node("m", "add"), edges=[edge("p.width", "m.a")])
    assert reason(drawn) == "unsupported_batch_input"


@pytest.mark.parametrize(
    ("generator", "size"),
    [
        ({"type": "integer_generator_arithmetic_sequence", "start": 1, "step": 2, "count": 5}, 5),
        ({"type": "integer_generator_linear_distribution", "start": 1, "end": 5, "count": 3}, 3),
        ({"type": "integer_generator_random_distribution_uniform", "min": 1, "max": 5, "count": 4}, 4),
        ({"type": "integer_generator_parse_string", "input": "1,2", "splitOn": ","}, 2),
    ],
)
def test_generators_can_feed_batches(generator: dict[str, Any], size: int) -> None:
    drawn = with_nodes(
        *batch(),
        node("g", "integer_generator", generator=generator),
        edges=[edge_into_add(), edge("g.integers", "b.integers")],
    )
    assert reason(drawn, capacity=size) == "ok"
    assert reason(drawn, capacity=size - 1) == "exceeds_capacity"


@pytest.mark.parametrize(
    "generator",
    [
        None,
        {"type": "integer_generator_of_another_kind"},
        {"type": "float_generator_arithmetic_sequence"},
        {"type": "integer_generator_parse_string", "input": "none"},
        {"type": "integer_generator_arithmetic_sequence", "count": -1},
        {"type": "integer_generator_parse_string", "input": "9" * 5000},
        {"type": "integer_generator_parse_string", "input": "9" * 30},
        {"type": "integer_generator_linear_distribution", "start": -1e308, "end": 1e308, "count": 3},
        {"type": "integer_generator_random_distribution_uniform", "min": 1e308, "max": 1e308},
    ],
)
def test_empty_generators_are_incompatible(generator: Any) -> None:
    drawn = with_nodes(
        *batch(),
        node("g", "integer_generator", generator=generator),
        edges=[edge_into_add(), edge("g.integers", "b.integers")],
    )
    assert reason(drawn) == "unsupported_batch_input"


def test_huge_generator_is_not_run() -> None:
    generator = {"type": "integer_generator_arithmetic_sequence", "count": 10**12}
    drawn = with_nodes(
        *batch(),
        node("g", "integer_generator", generator=generator),
        edges=[edge_into_add(), edge("g.integers", "b.integers")],
    )
    assert reason(drawn) == "exceeds_capacity"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"count": 10**12}, "do not fit into a queue of 100"),
        ({"start": 1e308, "step": 1e308, "count": 3}, "not a finite number"),
    ],
)
def test_generated_values_are_limited_by_the_queue_capacity(changes: dict[str, Any], why: str) -> None:
    generator = {"type": "float_generator_arithmetic_sequence", "start": 0, "step": 1, "count": 2}
    drawn = with_nodes(
        node("b", "float_batch", floats=[]),
        node("s", "float_math"),
        node("g", "float_generator", generator=generator),
        edges=[edge("b.value", "s.a"), edge("g.floats", "b.floats")],
        exposedFields=[{"nodeId": "g", "fieldName": "generator"}],
    )
    called = WorkflowWithoutID.model_validate(drawn)
    inputs: dict[str, Any] = {f"{DYNAMIC_INPUT}g::generator": generator | {"count": 3}}
    sources: Any = None
    assert len(sessions.graphs(called, inputs, sources, 100)) == 3
    inputs = {f"{DYNAMIC_INPUT}g::generator": generator | changes}
    with pytest.raises(sessions.NotCallable, match=why):
        sessions.graphs(called, inputs, sources, 100)


def graph_of(drawn: dict[str, Any], **options: Any) -> Graph:
    drawing = conversion.read(drawn["nodes"], drawn["edges"])
    return Graph.model_validate(conversion.graph(drawing, options.get("batched", {}), options.get("given", {})))


def test_workflow_is_converted_to_a_graph() -> None:
    drawn = workflow(
        nodes=[
            node("i", "integer", value=3),
            connector("x"),
            connector("y"),
            connector("loose"),
            node("m", "add", a=7, b=2),
            node("l", "l2i", board="auto", tiled=True),
            {"id": "n", "type": "notes", "data": {"notes": "n"}},
        ],
        edges=[
            edge("i.value", "x.in"),
            edge("x.out", "y.in"),
            edge("y.out", "m.a"),
            edge("loose.out", "m.b"),
            {"id": "e", "type": "collapsed", "source": "i", "target": "m"},
        ],
    )
    graph = graph_of(drawn, given={("m", "b"): 9, ("m", "a"): 1})
    assert set(graph.nodes) == {"i", "m", "l"}
    assert [str(link) for link in graph.edges] == ["i.value -> m.a"]
    assert graph.nodes["m"].model_dump(include={"a", "b", "is_intermediate", "use_cache"}) == {
        "a": 0,
        "b": 9,
        "is_intermediate": True,
        "use_cache": True,
    }
    assert graph.nodes["l"].board is None


def test_circular_connectors_produce_no_edges() -> None:
    drawn = workflow(
        nodes=[connector("x"), connector("y"), node("m", "add")],
        edges=[edge("x.out", "y.in"), edge("y.out", "x.in"), edge("y.out", "m.a")],
    )
    assert graph_of(drawn).edges == []


def test_values_for_a_called_workflow_are_passed_on() -> None:
    call = node("c", "call_saved_workflow", workflow_id="w")
    call["data"]["inputs"]["saved_workflow_input::i::value"] = {"name": "", "value": 4}
    graph = graph_of(workflow(nodes=[call]))
    assert graph.nodes["c"].workflow_inputs == {"saved_workflow_input::i::value": 4}


def test_batch_node_is_replaced_by_one_of_its_values() -> None:
    drawn = workflow(nodes=batch([5, 6]), edges=[edge_into_add()])
    graph = graph_of(drawn, batched={"b": 6})
    assert set(graph.nodes) == {"b+"}
    assert graph.nodes["b+"].a == 6
    assert graph.edges == []
