"""Graphs written shortly, and a worker that only runs nodes."""

from collections.abc import Callable
from typing import Any

import pytest

from invokeclone.graph.invocations import registry
from invokeclone.graph.invocations.invocation import BaseInvocation
from invokeclone.graph.session.execution import GraphExecutionState
from tests.fakes_context import FakeContext

registry.discover()

Json = dict[str, Any]


def _edge(text: str) -> Json:
    ends = [dict(zip(("node_id", "field"), end.strip().split("."), strict=True)) for end in text.split(">")]
    return {"source": ends[0], "destination": ends[1]}


def _graph(nodes: Json, edges: list[str] | None = None) -> Json:
    """Nodes as {id: "type" or {"type": …}}, edges as "a.value > b.a"."""
    full = {key: {"id": key, **({"type": node} if isinstance(node, str) else node)} for key, node in nodes.items()}
    return {"nodes": full, "edges": [_edge(edge) for edge in edges or []]}


def _run(state: GraphExecutionState, prepared: list[BaseInvocation] | None = None) -> GraphExecutionState:
    while (node := state.next()) is not None:
        if prepared is not None:
            prepared.append(node)
        state.complete(node.id, node.invoke_checked(FakeContext()))  # type: ignore[arg-type]
    return state


class Ran:
    """A session that was run, and what its nodes put out."""

    def __init__(self, state: GraphExecutionState, order: list[BaseInvocation]) -> None:
        self.state = state
        self.order = [state.prepared_source_mapping[node.id] for node in order]

    def values(self, source_id: str) -> list[Any]:
        """Return what the copies of a node put out, in iteration order."""
        copies = self.state.source_prepared_mapping[source_id]
        outputs = [self.state.results[copy] for copy in copies if copy in self.state.results]
        return [
            getattr(output, next(name for name in type(output).model_fields if name != "output_meta"))
            for output in outputs
        ]


@pytest.fixture
def graph() -> Callable[..., Json]:
    return _graph


@pytest.fixture
def run() -> Callable[..., Ran]:
    def run_graph(nodes: Json, edges: list[str] | None = None) -> Ran:
        prepared: list[BaseInvocation] = []
        return Ran(_run(GraphExecutionState(graph=_graph(nodes, edges)), prepared), prepared)  # type: ignore[arg-type]

    return run_graph


@pytest.fixture
def run_state() -> Callable[[GraphExecutionState], GraphExecutionState]:
    return _run
