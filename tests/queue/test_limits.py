"""What is over a limit is refused before anything is stored; what is under it passes in time linear in its size."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from invokeclone.graph.invocations import registry
from invokeclone.graph.session.execution import GraphExecutionState
from invokeclone.graph.session.graph import Graph
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.resources import Resources
from invokeclone.queue import batch_json
from invokeclone.queue.batches import Batch
from invokeclone.queue.schemas import EnqueueBatchResult

Client = httpx.AsyncClient

registry.discover()


@pytest.fixture
def limit(resources: Resources) -> Callable[..., None]:
    def set_limits(**values: int) -> None:
        resources.settings = resources.settings.model_copy(update={"limits": Limits(**values)})

    return set_limits


async def enqueue_invalid(client: Client, batch: dict[str, Any]) -> tuple[int, str]:
    answer = await client.post("enqueue_batch", json={"batch": batch})
    assert (await client.get("status")).json()["queue"]["total"] == 0
    return answer.status_code, str(answer.json()["detail"])


def add(number: int) -> dict[str, Any]:
    return {"id": f"n{number}", "type": "add", "a": number}


def chain(number: int) -> dict[str, Any]:
    edges = [edge(f"n{i}.value", f"n{i + 1}.a") for i in range(number - 1)]
    return {"id": "g", "nodes": {f"n{i}": add(i) for i in range(number)}, "edges": edges}


def edge(source: str, destination: str) -> dict[str, Any]:
    ends = [dict(zip(("node_id", "field"), end.split("."), strict=True)) for end in (source, destination)]
    return {"source": ends[0], "destination": ends[1]}


async def test_each_size_of_a_batch_has_a_limit(client: Client, limit: Any, make: Any) -> None:
    limit(graph_nodes=3, graph_edges=2, batch_fields=1, batch_values=4)
    data = [[make.datum("a", "number", *range(4))]]
    for batch, what in (
        (make.batch(graph=chain(4)), "graph_nodes"),
        (make.batch(graph={**chain(3), "edges": chain(3)["edges"] * 2}), "graph_edges"),
        (make.batch(data=[[make.datum("a", "number", *range(5))]]), "batch_values"),
        (make.batch(data=[*data, [make.datum("a", "small", 1)]]), "batch_fields"),
    ):
        status, detail = await enqueue_invalid(client, batch)
        assert (status, what in detail) == (422, True), detail
    assert (await client.post("enqueue_batch", json={"batch": make.batch(data=data)})).json()["enqueued"] == 4


async def test_total_session_size_of_a_batch_has_a_limit(client: Client, limit: Any, make: Any) -> None:
    limit(batch_mib=1)
    graph = make.graph(a={"text": "x" * 200_000})
    assert (await enqueue_invalid(client, make.batch(graph=graph, runs=6)))[0] == 413
    texts = [[make.datum("a", "text", *["x" * 200_000] * 6)]]
    assert (await enqueue_invalid(client, make.batch(data=texts)))[0] == 413
    assert (await client.post("enqueue_batch", json={"batch": make.batch(graph=graph, runs=4)})).json()["enqueued"] == 4


async def test_requested_image_sizes_have_a_limit(client: Client, limit: Any, make: Any) -> None:
    limit(node_pixels=1000, image_side=100)
    for width, height in ((40, 40), (101, 1)):
        node = {"id": "b", "type": "blank_image", "width": width, "height": height}
        status, detail = await enqueue_invalid(client, make.batch(graph={"nodes": {"b": node}, "edges": []}))
        assert (status, f"node b (blank_image) requests {width}×{height}" in detail) == (422, True)


async def test_a_large_graph_is_validated_like_a_small_one(client: Client, make: Any) -> None:
    wrong = chain(300)
    wrong["nodes"]["n299"]["a"] = "no number"
    answer = await client.post("enqueue_batch", json={"batch": make.batch(graph=wrong)})
    assert answer.json()["detail"][0]["loc"] == ["body", "batch", "graph", "nodes", "n299", "add", "a"]
    wrong = chain(1500)
    wrong["edges"][1200]["source"] = 7
    answer = await client.post("enqueue_batch", json={"batch": make.batch(graph=wrong)})
    assert answer.json()["detail"][0]["loc"] == ["body", "batch", "graph", "edges", 1200, "source"]
    assert (await client.post("enqueue_batch", json={"batch": None})).status_code == 422
    assert (await client.post("enqueue_batch", json={"batch": make.batch(graph=chain(1500))})).json()["enqueued"] == 1


async def test_large_responses_are_serialized_like_small_ones(make: Any) -> None:
    """It is put together from slices, which must not show."""
    names = ("name", "author", "description", "version", "contact", "tags", "notes")
    workflow: dict[str, Any] = dict.fromkeys(names, "é")
    workflow |= {"exposedFields": [], "meta": {"version": "3.0.0", "category": "user"}, "edges": [], "form": {"a": 1}}
    nodes = [{"id": f"n{number}", "data": {"x": [number, None, 1.5]}} for number in range(450)]
    data = [[make.datum("n0", "a", *range(450))], []]
    parts: dict[str, Any] = {"graph": chain(450) | {"id": 'q"é'}, "data": data, "runs": 2}
    for extra in ({}, {"workflow": workflow | {"nodes": nodes}}, {"data": None}):
        batch = Batch.model_validate(parts | extra)
        result = EnqueueBatchResult(
            queue_id="d", enqueued=2, requested=10**30, batch=batch, priority=0, item_ids=[2, 1]
        )
        assert await batch_json.dump_result(result) == result.model_dump_json()


def test_chained_collectors_are_checked_once_each() -> None:
    """Each is fed twice by the one before: following every edge would take 2**1500 steps, and recursion has an end."""
    nodes: dict[str, Any] = {"i": {"id": "i", "type": "integer"}, "c0": {"id": "c0", "type": "collect"}}
    edges = [edge("i.value", "c0.item")]
    for number in range(1, 1500):
        nodes[f"c{number}"] = {"id": f"c{number}", "type": "collect"}
        edges += [edge(f"c{number - 1}.collection", f"c{number}.collection")] * 2
    Graph.model_validate({"nodes": nodes, "edges": edges}).validate_self()
    nodes["s"] = {"id": "s", "type": "string"}
    edges.append(edge("s.value", "c0.item"))
    with pytest.raises(ValueError, match="single type"):
        Graph.model_validate({"nodes": nodes, "edges": edges}).validate_self()


def test_long_unselected_branch_is_skipped() -> None:
    graph = chain(1500)
    graph["nodes"] |= {
        "b": {"id": "b", "type": "boolean", "value": False},
        "if": {"id": "if", "type": "if", "false_input": 3},
    }
    graph["edges"] += [edge("b.value", "if.condition"), edge("n1499.value", "if.true_input")]
    state = GraphExecutionState(graph=Graph.model_validate(graph))
    ran = []
    while (node := state.next()) is not None:
        ran.append(node.get_type())
        state.complete(node.id, node.invoke(None))  # type: ignore[arg-type]
    assert ran == ["boolean", "if"]
    assert state.is_complete()
