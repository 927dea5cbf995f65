"""Gates of nested `if` nodes: those that a plain search finds, in time that grows with the graph and not with its square."""

import random
import time
from typing import Any

from invokeclone.graph.session.graph import Graph, Layout
from invokeclone.graph.session.plan import BRANCHES, GraphPlan


def edge(source: str, destination: str, field: str) -> dict[str, Any]:
    return {
        "source": {"node_id": source, "field": "value"},
        "destination": {"node_id": destination, "field": field},
    }


def graph_of(kinds: list[str], edges: list[dict[str, Any]]) -> Graph:
    nodes = {f"n{number}": {"id": f"n{number}", "type": kind} for number, kind in enumerate(kinds)}
    return Graph.model_construct(
        nodes=Graph.model_validate({"nodes": nodes}).nodes, edges=Graph.model_validate({"edges": edges}).edges
    )


def random_graph(rng: random.Random) -> Graph:
    """Return a graph of up to 12 nodes, half of them `if`, whose edges lead from earlier nodes to later ones."""
    kinds = [rng.choice(["if", "boolean"]) for _ in range(rng.randrange(2, 12))]
    edges = []
    for number, kind in enumerate(kinds):
        fields = (*BRANCHES.values(), "condition") if kind == "if" else ("value",)
        edges += [
            edge(f"n{rng.randrange(max(number - 3, 0), number)}", f"n{number}", field)
            for field in fields
            if number and rng.random() < 0.6
        ]
    return graph_of(kinds, edges)


def exclusive(graph: Graph, if_id: str, field: str) -> set[str]:
    """Nodes that have outputs, all of which end in one input of the `if`."""
    layout = Layout(graph)
    node_ids: set[str] = set()
    for node_id in reversed(layout.order):
        edges = layout.outward[node_id]
        if edges and all(
            link.destination.node_id in node_ids
            or (link.destination.node_id == if_id and link.destination.field == field)
            for link in edges
        ):
            node_ids.add(node_id)
    return node_ids


def test_gates_match_a_brute_force_search() -> None:
    rng, nested = random.Random(1), 0
    for _ in range(500):
        graph = random_graph(rng)
        plan = GraphPlan(graph)
        ifs = [node_id for node_id, node in graph.nodes.items() if node.get_type() == "if"]
        gates = {(if_id, branch): exclusive(graph, if_id, field) for if_id in ifs for branch, field in BRANCHES.items()}
        for node_id in graph.nodes:
            got = [(gate.if_id, gate.branch) for gate in plan.gates_of(node_id)]
            assert set(got) == {gate for gate, behind in gates.items() if node_id in behind}
            nested += len(got) > 1
            assert [plan.layout.order.index(if_id) for if_id, _ in got] == sorted(
                plan.layout.order.index(if_id) for if_id, _ in got
            )
    assert nested > 50


def test_planning_nested_ifs_costs_no_more_than_planning_a_chain() -> None:
    count = 500
    nested = graph_of(["if"] * count, [edge(f"n{n}", f"n{n + 1}", "true_input") for n in range(count - 1)])
    chain = graph_of(["boolean"] * count, [edge(f"n{n}", f"n{n + 1}", "value") for n in range(count - 1)])
    seconds: dict[str, float] = {}
    for name, graph in (("nested", nested), ("chain", chain), ("nested", nested), ("chain", chain)):
        began = time.process_time()
        plan = GraphPlan(graph)
        seconds[name] = min(time.process_time() - began, seconds.get(name, 1e9))
        assert len(plan.gates) == (count - 1 if name == "nested" else 0)
    assert seconds["nested"] < 20 * seconds["chain"]
