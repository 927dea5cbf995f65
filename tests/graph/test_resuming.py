"""A session stored after any node and opened again ends as if nothing had happened; random graphs."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invokeclone.graph.session.execution import GraphExecutionState
from tests.fakes_context import FakeContext

Make = Callable[..., dict[str, Any]]

GRAPHS: dict[str, tuple[dict[str, Any], list[str], str, list[Any]]] = {
    "nested": (
        {
            "r": {"type": "range", "start": 1, "stop": 4},
            "i": "iterate",
            "s": {"type": "range_of_size", "step": 10},
            "j": "iterate",
            "a": "add",
            "c": "collect",
            "d": "collect",
        },
        [
            "r.collection > i.collection",
            "i.item > s.size",
            "s.collection > j.collection",
            "j.item > a.a",
            "i.item > a.b",
            "a.value > c.item",
            "c.collection > d.collection",
        ],
        "d",
        [[1, 2, 12, 3, 13, 23]],
    ),
    "choice": (
        {
            "r": {"type": "boolean_collection", "collection": [True, False, True]},
            "i": "iterate",
            "x": {"type": "integer", "value": 1},
            "y": {"type": "integer", "value": 2},
            "if": "if",
            "s": "string",
            "c": "collect",
        },
        [
            "r.collection > i.collection",
            "i.item > if.condition",
            "x.value > if.true_input",
            "y.value > if.false_input",
            "if.value > s.value",
            "s.value > c.item",
        ],
        "c",
        [["1", "2", "1"]],
    ),
}


def outcome(state: GraphExecutionState, source: str) -> list[Any]:
    return [state.results[copy].collection for copy in state.source_prepared_mapping[source]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", GRAPHS)
def test_run_survives_a_json_round_trip_after_every_node(name: str, graph: Make) -> None:
    nodes, edges, last, expected = GRAPHS[name]
    state = GraphExecutionState(graph=graph(nodes, edges))
    steps = 0
    while (node := state.next()) is not None:
        state.complete(node.id, node.invoke(FakeContext()))  # type: ignore[arg-type]
        state = GraphExecutionState.model_validate_json(state.to_json())
        steps += 1
    assert outcome(state, last) == expected
    assert state.is_complete()
    assert steps == sum(copy in state.results for copy in state.prepared_source_mapping)


Sizes = st.lists(st.integers(0, 3), min_size=1, max_size=3)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=Sizes)
def test_independent_loops_are_multiplied(sizes: list[int], graph: Make, run_state: Any) -> None:
    """Every combination comes once, in the order of its indices; collectors close one loop each, from the innermost."""
    nodes: dict[str, Any] = {"sum0": {"type": "integer", "value": 0}}
    edges = []
    for index, size in enumerate(sizes):
        nodes[f"r{index}"] = {"type": "integer_collection", "collection": [10**index * n for n in range(size)]}
        nodes[f"i{index}"] = "iterate"
        nodes[f"sum{index + 1}"] = "add"
        edges += [
            f"r{index}.collection > i{index}.collection",
            f"i{index}.item > sum{index + 1}.a",
            f"sum{index}.value > sum{index + 1}.b",
        ]
    last = f"sum{len(sizes)}.value > c0.item"
    for index in range(len(sizes)):
        nodes[f"c{index}"] = "collect"
        edges.append(last)
        last = f"c{index}.collection > c{index + 1}.collection"
    state = run_state(GraphExecutionState(graph=graph(nodes, edges)))
    combinations = product(*([10**index * n for n in range(size)] for index, size in enumerate(sizes)))
    final = f"c{len(sizes) - 1}"
    assert outcome(state, final) == [[sum(combination) for combination in combinations]]
    assert state.is_complete()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_sums(data: st.DataObject, graph: Make, run_state: Any) -> None:
    """In any graph of additions each node runs once, after its parents, and gets what they put out."""
    count = data.draw(st.integers(1, 12))
    nodes = {f"n{index}": {"type": "add", "a": index, "b": 1} for index in range(count)}
    links = {
        (index, field): data.draw(st.none() | st.integers(0, index - 1)) if index else None
        for index in range(count)
        for field in "ab"
    }
    edges = [f"n{parent}.value > n{index}.{field}" for (index, field), parent in links.items() if parent is not None]
    state = run_state(GraphExecutionState(graph=graph(nodes, edges)))
    expected: dict[int, int] = {}
    for index in range(count):
        parents = [links[index, field] for field in "ab"]
        literals = (index, 1)
        expected[index] = sum(
            literal if parent is None else expected[parent] for parent, literal in zip(parents, literals, strict=True)
        )
    for index, value in expected.items():
        (copy,) = state.source_prepared_mapping[f"n{index}"]
        assert state.results[copy].value == value
    assert len(state.executed_history) == count
