"""A text-to-image session recorded on InvokeAI 6.14.2: the same order, the same inputs, the same JSON."""

import json
from pathlib import Path
from typing import Any

from invokeclone.graph.session.execution import GraphExecutionState

RECORDED = json.loads((Path(__file__).parent / "data" / "session.json").read_text())


def by_source(session: dict[str, Any]) -> tuple[Any, Any]:
    """Return copies and results with the ids of copies replaced by those of their source nodes."""
    text = json.dumps([session["execution_graph"]["nodes"], session["results"]])
    for copy, source in session["prepared_source_mapping"].items():
        text = text.replace(copy, f"copy of {source}")
    nodes, results = json.loads(text)
    return nodes, results


def test_a_recorded_session_round_trips() -> None:
    state = GraphExecutionState.model_validate(RECORDED)
    stored = json.loads(state.to_json())
    assert state.is_complete()
    assert state.next() is None
    assert list(stored) == list(RECORDED)
    for name, value in RECORDED.items():
        assert (sorted(stored[name]), name) == (sorted(value), name) if name == "executed" else stored[name] == value


def test_a_recorded_session_is_reproduced() -> None:
    recorded = GraphExecutionState.model_validate(RECORDED)
    outputs = {source: recorded.results[copy] for copy, source in recorded.prepared_source_mapping.items()}
    state = GraphExecutionState.model_validate({"graph": RECORDED["graph"]})
    while (node := state.next()) is not None:
        state.complete(node.id, outputs[state.prepared_source_mapping[node.id]])
    assert state.executed_history == RECORDED["executed_history"]
    nodes, results = by_source(json.loads(state.to_json()))
    expected_nodes, expected_results = by_source(RECORDED)
    assert results == expected_results
    assert nodes == expected_nodes
    assert {name: list(node) for name, node in nodes.items()} == {
        name: list(node) for name, node in expected_nodes.items()
    }
