"""How sessions unfold: order, iteration, collecting, choosing, errors, storing and going on."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from invokeclone.graph.invocations.invocation import MissingInputException, RequiredConnectionException
from invokeclone.graph.session.execution import GraphExecutionState, NodeInputError
from tests.fakes_context import FakeContext

Run = Callable[..., Any]
Make = Callable[..., dict[str, Any]]

LOOP = ["r.collection > i.collection", "i.item > a.a", "a.value > c.item"]


def test_chain(run: Run) -> None:
    ran = run({"a": {"type": "add", "a": 1, "b": 2}, "b": {"type": "add", "b": 10}}, ["a.value > b.a"])
    assert ran.values("b") == [13]
    assert ran.state.is_complete()
    assert not ran.state.has_error()
    assert ran.state.executed_history == ["a", "b"]
    assert ran.state.executed == {"a", "b", *ran.state.prepared_source_mapping}


def test_the_last_edge_to_an_input_wins(run: Run) -> None:
    nodes = {"x": {"type": "integer", "value": 1}, "y": {"type": "integer", "value": 2}, "a": "add"}
    assert run(nodes, ["x.value > a.a", "y.value > a.a"]).values("a") == [2]
    assert run(nodes, ["y.value > a.a", "x.value > a.a"]).values("a") == [1]


def test_the_source_graph_is_not_modified(run: Run) -> None:
    ran = run({"a": {"type": "add", "a": 1}, "b": "add"}, ["a.value > b.a"])
    assert ran.state.graph.nodes["b"].model_dump()["a"] == 0
    (copy,) = ran.state.source_prepared_mapping["b"]
    assert ran.state.execution_graph.nodes[copy].model_dump()["a"] == 1


def test_nodes_run_class_by_class(run: Run) -> None:
    """The first node starts; then classes follow by name, each to its end."""
    nodes = {
        "s": "string",
        "j": "string_join",
        "k": "string_join",
        "n": "integer",
        "x": "add",
        "y": "add",
    }
    edges = [
        "n.value > x.a",
        "n.value > y.a",
        "s.value > j.string_left",
        "s.value > k.string_left",
        "y.value > k.string_right",
    ]
    assert run(nodes, edges).order == ["s", "n", "x", "y", "j", "k"]


def test_ready_order_classes_run_first(graph: Make, run_state: Any) -> None:
    state = GraphExecutionState(
        graph=graph({"r": "range", "a": "add", "s": "string", "f": "float"}), ready_order=["StringInvocation"]
    )
    run_state(state)
    assert state.executed_history == ["r", "s", "a", "f"]


def test_loop(run: Run) -> None:
    ran = run({"r": {"type": "range", "stop": 3}, "i": "iterate", "a": {"type": "add", "b": 10}, "c": "collect"}, LOOP)
    assert ran.values("c") == [[10, 11, 12]]
    assert ran.state.executed_history == ["r", "i", "a", "c"]
    assert ran.order == ["r", "i", "i", "i", "a", "a", "a", "c"]
    paths = [ran.state.prepared_iteration_paths[copy] for copy in ran.state.source_prepared_mapping["a"]]
    assert paths == [[0], [1], [2]]
    copies = [ran.state.execution_graph.nodes[copy] for copy in ran.state.source_prepared_mapping["i"]]
    assert [(copy.model_dump()["index"], copy.use_cache, copy.model_dump()["collection"]) for copy in copies] == [
        (0, False, []),
        (1, False, []),
        (2, False, []),
    ]


def test_iterate_outputs_index_and_total(run: Run) -> None:
    edges = ["r.collection > i.collection", "i.index > a.a", "i.total > a.b"]
    ran = run({"r": {"type": "range", "start": 5, "stop": 8}, "i": "iterate", "a": "add"}, edges)
    assert ran.values("a") == [3, 4, 5]


def test_more_than_ten_iterations_keep_their_order(run: Run) -> None:
    ran = run({"r": {"type": "range", "stop": 25}, "i": "iterate", "a": "add", "c": "collect"}, LOOP)
    assert ran.values("c") == [list(range(25))]


def test_the_same_iterator_is_paired_not_multiplied(run: Run) -> None:
    edges = [
        "r.collection > i.collection",
        "i.item > a.a",
        "i.item > m.a",
        "a.value > b.a",
        "m.value > b.b",
        "b.value > c.item",
    ]
    nodes = {
        "r": {"type": "range", "stop": 3},
        "i": "iterate",
        "a": {"type": "add", "b": 100},
        "m": {"type": "mul", "b": 10},
        "b": "add",
        "c": "collect",
    }
    assert run(nodes, edges).values("c") == [[100, 111, 122]]


def test_two_iterators_multiply_and_collect_one_level_at_a_time(run: Run) -> None:
    nodes = {
        "r": {"type": "range", "stop": 2},
        "q": {"type": "range", "stop": 3},
        "i": "iterate",
        "j": "iterate",
        "t": {"type": "mul", "b": 10},
        "a": "add",
        "c": "collect",
        "d": "collect",
    }
    edges = [
        "r.collection > i.collection",
        "q.collection > j.collection",
        "i.item > t.a",
        "t.value > a.a",
        "j.item > a.b",
        "a.value > c.item",
        "c.collection > d.collection",
    ]
    ran = run(nodes, edges)
    assert ran.values("a") == [0, 1, 2, 10, 11, 12]
    assert ran.values("c") == [[0, 1, 2], [10, 11, 12]]
    assert ran.values("d") == [[0, 1, 2, 10, 11, 12]]


NESTED = [
    "r.collection > i.collection",
    "i.item > s.size",
    "s.collection > j.collection",
    "j.item > a.a",
    "i.item > a.b",
    "a.value > c.item",
    "c.collection > d.collection",
]


def test_nested_iterators(run: Run) -> None:
    nodes = {
        "r": {"type": "range", "start": 1, "stop": 4},
        "i": "iterate",
        "s": {"type": "range_of_size", "step": 10},
        "j": "iterate",
        "a": "add",
        "c": "collect",
        "d": "collect",
    }
    ran = run(nodes, NESTED)
    assert ran.values("c") == [[1], [2, 12], [3, 13, 23]]
    assert ran.values("d") == [[1, 2, 12, 3, 13, 23]]
    assert [ran.state.prepared_iteration_paths[copy] for copy in ran.state.source_prepared_mapping["a"]] == [
        [0, 0],
        [1, 0],
        [1, 1],
        [2, 0],
        [2, 1],
        [2, 2],
    ]


def test_empty_loop(run: Run) -> None:
    nodes = {"r": "integer_collection", "i": "iterate", "a": "add", "c": "collect", "e": "collect"}
    ran = run(nodes, [*LOOP, "c.collection > e.collection"])
    assert ran.values("c") == [[]]
    assert ran.values("e") == [[]]
    assert ran.state.source_prepared_mapping["i"] == ran.state.source_prepared_mapping["a"] == []
    assert ran.state.is_complete()
    assert ran.state.executed_history == ["r", "i", "a", "c", "e"]


def test_one_inner_loop_is_empty(run: Run) -> None:
    nodes = {
        "r": {"type": "string_collection", "collection": ["a,b", "", "c"]},
        "i": "iterate",
        "j": {"type": "string_replace", "search_string": ",", "replace_string": "-"},
        "c": "collect",
    }
    edges = ["r.collection > i.collection", "i.item > j.string", "j.value > c.item"]
    assert run(nodes, edges).values("c") == [["a-b", "", "c"]]


def test_loop_after_a_collector(run: Run) -> None:
    nodes = {"r": {"type": "range", "stop": 3}, "i": "iterate", "a": {"type": "add", "b": 1}, "c": "collect"}
    second_loop = {"j": "iterate", "m": {"type": "mul", "b": 2}, "d": "collect"}
    ran = run({**nodes, **second_loop}, [*LOOP, "c.collection > j.collection", "j.item > m.a", "m.value > d.item"])
    assert ran.values("d") == [[2, 4, 6]]


def test_collections_come_before_items(run: Run) -> None:
    nodes = {
        "x": {"type": "integer", "value": 9},
        "r": {"type": "range", "stop": 2},
        "q": {"type": "range", "start": 5, "stop": 7},
        "y": {"type": "integer", "value": 8},
        "c": "collect",
    }
    edges = ["x.value > c.item", "r.collection > c.collection", "q.collection > c.collection", "y.value > c.item"]
    ran = run(nodes, edges)
    assert ran.values("c") == [[0, 1, 5, 6, 9, 8]]
    (copy,) = ran.state.source_prepared_mapping["c"]
    assert ran.state.execution_graph.nodes[copy].model_dump() == {
        "id": copy,
        "is_intermediate": False,
        "use_cache": False,
        "item": None,
        "collection": [],
        "type": "collect",
    }


def test_a_collector_takes_outer_values_into_every_group(run: Run) -> None:
    nodes = {
        "r": {"type": "range", "stop": 2},
        "q": {"type": "range", "stop": 2},
        "i": "iterate",
        "j": "iterate",
        "a": "add",
        "k": {"type": "integer", "value": 7},
        "c": "collect",
    }
    edges = [
        "r.collection > i.collection",
        "q.collection > j.collection",
        "i.item > a.a",
        "j.item > a.b",
        "a.value > c.item",
        "k.value > c.item",
    ]
    assert sorted(map(sorted, run(nodes, edges).values("c"))) == [[0, 1, 7], [1, 2, 7]]


CHOICE = {
    "b": "boolean",
    "t": {"type": "integer", "value": 1},
    "t2": {"type": "add", "b": 10},
    "f": {"type": "integer", "value": 2},
    "if": "if",
    "end": "add",
}
CHOICE_EDGES = [
    "b.value > if.condition",
    "t.value > t2.a",
    "t2.value > if.true_input",
    "f.value > if.false_input",
    "if.value > end.a",
]


@pytest.mark.parametrize(("condition", "value", "not_run"), [(True, 11, {"f"}), (False, 2, {"t", "t2"})])
def test_only_the_chosen_branch_runs(run: Run, condition: bool, value: int, not_run: set[str]) -> None:
    ran = run({**CHOICE, "b": {"type": "boolean", "value": condition}}, CHOICE_EDGES)
    assert ran.values("end") == [value]
    assert set(CHOICE) - set(ran.order) == not_run
    assert set(CHOICE) <= ran.state.executed
    assert set(ran.state.executed_history) == set(CHOICE)
    for source in not_run:
        assert ran.values(source) == []


def test_literal_condition_and_unconnected_branch(run: Run) -> None:
    ran = run(
        {"t": "integer", "if": {"type": "if", "condition": False, "false_input": "plain"}}, ["t.value > if.true_input"]
    )
    assert ran.values("if") == ["plain"]
    assert ran.order == ["if"]


def test_branch_nodes_needed_elsewhere_still_run(run: Run) -> None:
    ran = run({**CHOICE, "other": "add"}, [*CHOICE_EDGES, "t2.value > other.a"])
    assert set(CHOICE) - set(ran.order) == set()
    assert ran.values("end") == [2]


def test_if_per_iteration(run: Run) -> None:
    nodes = {
        "r": {"type": "boolean_collection", "collection": [True, False, True]},
        "i": "iterate",
        "yes": {"type": "string_join", "string_left": "yes "},
        "no": {"type": "string_join", "string_left": "no "},
        "n": "integer",
        "if": "if",
        "s": "string",
        "c": "collect",
    }
    edges = [
        "r.collection > i.collection",
        "i.item > if.condition",
        "i.index > n.value",
        "n.value > yes.string_right",
        "n.value > no.string_right",
        "yes.value > if.true_input",
        "no.value > if.false_input",
        "if.value > s.value",
        "s.value > c.item",
    ]
    ran = run(nodes, edges)
    assert ran.values("c") == [["yes 0", "no 1", "yes 2"]]
    assert ran.values("yes") == ["yes 0", "yes 2"]
    assert ran.order.count("no") == 1


def test_a_loop_in_an_unchosen_branch_does_not_run(run: Run) -> None:
    nodes = {
        "r": {"type": "range", "stop": 3},
        "i": "iterate",
        "a": "add",
        "c": "collect",
        "x": {"type": "integer", "value": 5},
        "b": {"type": "boolean", "value": False},
        "if": "if",
    }
    edges = [*LOOP, "c.collection > if.true_input", "x.value > if.false_input", "b.value > if.condition"]
    ran = run(nodes, edges)
    assert ran.values("if") == [5]
    assert set(ran.order) == {"b", "x", "if"}
    assert ran.state.is_complete()
    nodes["b"] = {"type": "boolean", "value": True}
    assert run(nodes, edges).values("if") == [[0, 1, 2]]


def test_an_open_loop_in_a_branch(run: Run) -> None:
    """The branch that loops makes the choice and what follows loop; the other does not."""
    nodes = {
        "r": {"type": "range", "stop": 3},
        "i": "iterate",
        "a": "add",
        "x": {"type": "integer", "value": 5},
        "b": {"type": "boolean", "value": True},
        "if": "if",
        "end": "add",
    }
    edges = [
        *LOOP[:2],
        "a.value > if.true_input",
        "x.value > if.false_input",
        "b.value > if.condition",
        "if.value > end.a",
    ]
    assert run(nodes, edges).values("end") == [0, 1, 2]
    nodes["b"] = {"type": "boolean", "value": False}
    assert run(nodes, edges).values("end") == [5]


def test_nested_ifs(run: Run) -> None:
    nodes = {
        "b1": {"type": "boolean", "value": False},
        "b2": {"type": "boolean", "value": True},
        "x": "integer",
        "y": "integer",
        "z": {"type": "integer", "value": 3},
        "in": "if",
        "out": "if",
    }
    edges = [
        "b2.value > in.condition",
        "x.value > in.true_input",
        "y.value > in.false_input",
        "b1.value > out.condition",
        "in.value > out.true_input",
        "z.value > out.false_input",
    ]
    ran = run(nodes, edges)
    assert ran.values("out") == [3]
    assert set(ran.order) == {"b1", "z", "out"}
    nodes["b1"] = {"type": "boolean", "value": True}
    ran = run(nodes, edges)
    assert set(ran.order) == {"b1", "b2", "x", "in", "out"}


def test_bad_value_from_an_edge(graph: Make) -> None:
    nodes = {"x": {"type": "integer", "value": 0}, "m": {"type": "integer_math", "operation": "DIV"}}
    state = GraphExecutionState(graph=graph(nodes, ["x.value > m.b"]))
    first = state.next()
    assert first is not None
    state.complete(first.id, first.invoke(FakeContext()))  # type: ignore[arg-type]
    with pytest.raises(NodeInputError, match=r"b: .*Cannot divide by zero") as caught:
        state.next()
    node = caught.value.node
    assert caught.value.path == "b"
    assert node.id in str(caught.value)
    state.set_node_error(node.id, "NodeInputError: no")
    assert state.has_error()
    assert state.is_complete()
    assert state.next() is None


def test_bad_value_inside_of_a_list(graph: Make, run_state: Any) -> None:
    nodes = {
        "i": {"type": "string_collection", "collection": ["1", "x"]},
        "n": "metadata_item",
        "l": "integer_collection",
    }
    data = graph({**nodes, "v": "if"}, ["i.collection > v.false_input", "v.value > l.collection"])
    with pytest.raises(NodeInputError) as caught:
        run_state(GraphExecutionState(graph=data))
    assert caught.value.path == "collection.1"


def test_required_inputs(run: Run) -> None:
    with pytest.raises(MissingInputException, match=r"dynamic_prompt.*prompt"):
        run({"d": "dynamic_prompt"})
    with pytest.raises(RequiredConnectionException, match=r"conditioning.*conditioning"):
        run({"c": "conditioning"})


def test_values_are_copied(run: Run) -> None:
    nodes = {"i": {"type": "metadata_item", "label": "l", "value": {"deep": [1]}}, "m": "metadata"}
    ran = run(nodes, ["i.item > m.items"])
    (copy,) = ran.state.source_prepared_mapping["m"]
    output = ran.values("i")[0]
    taken = ran.state.execution_graph.nodes[copy].items  # type: ignore[attr-defined]
    assert taken == output
    assert taken is not output
    assert taken.value is not output.value


def test_json(run: Run) -> None:
    ran = run({"r": {"type": "range", "stop": 2}, "i": "iterate", "a": "add", "c": "collect"}, LOOP)
    data = json.loads(ran.state.to_json())
    assert list(data) == [
        "id",
        "graph",
        "execution_graph",
        "executed",
        "executed_history",
        "results",
        "errors",
        "workflow_call_stack",
        "workflow_call_history",
        "max_workflow_call_depth",
        "prepared_source_mapping",
        "source_prepared_mapping",
        "prepared_iteration_paths",
        "ready_order",
        "indegree",
    ]
    assert set(data["indegree"].values()) == {0}
    (copy,) = data["source_prepared_mapping"]["c"]
    assert data["results"][copy] == {"collection": [0, 1], "type": "collect_output"}
    assert list(data["graph"]["nodes"]["a"]) == ["id", "is_intermediate", "use_cache", "a", "b", "type"]
    assert data["errors"] == {}


def test_starting_without_a_second_validation(graph: Make, run_state: Any) -> None:
    first = GraphExecutionState(graph=graph({"a": "add"}))
    second = GraphExecutionState.start(first.graph, "mine")
    assert second.id == "mine"
    assert run_state(second).is_complete()
    assert not first.is_complete()
    assert GraphExecutionState.start(first.graph).id != second.id
