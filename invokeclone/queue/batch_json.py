"""Validation of batches in requests and serialization of the result, off the event loop if they are large."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from invokeclone.graph.session.edges import Edge
from invokeclone.graph.session.graph import Graph
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.process.offload import off_loop
from invokeclone.kit.requests import validating
from invokeclone.kit.sliced_json import list_json, model_json
from invokeclone.queue.batches import Batch, BatchValue, Sizes
from invokeclone.queue.schemas import EnqueueBatchResult

_EDGES = TypeAdapter(list[Edge])
_VALUES = TypeAdapter(list[BatchValue])


async def read_batch(body: Any, limits: Limits) -> Batch:
    """Return the batch in a request body. Raises RequestValidationError, and Unprocessable for sizes over a limit."""
    sizes = _sizes(body)
    sizes.check(limits)
    with validating("batch"):
        if not sizes.are_large and _member(body, "workflow") is None:
            return Batch.model_validate(body)
        return await off_loop(lambda: Batch.model_validate(body))


async def dump_result(result: EnqueueBatchResult) -> str:
    """Return the result, which includes the batch, as JSON text."""
    if not result.batch.is_large:
        return result.model_dump_json()
    return await off_loop(lambda: _result_json(result))


def _result_json(result: EnqueueBatchResult) -> str:
    batch = result.batch
    return model_json(result, batch=model_json(batch, graph=_graph_json(batch.graph), **_large_parts(batch)))


def _graph_json(graph: Graph) -> str:
    nodes = [
        f"{json.dumps(node_id, ensure_ascii=False)}:{node.model_dump_json()}" for node_id, node in graph.nodes.items()
    ]
    return model_json(graph, nodes=f"{{{','.join(nodes)}}}", edges=list_json(_EDGES, graph.edges))


def _large_parts(batch: Batch) -> dict[str, str]:
    """Return the JSON texts of the data and of the workflow, if there are any."""
    parts = {} if batch.workflow_json is None else {"workflow": batch.workflow_json}
    if batch.data is None:
        return parts
    zipped = [[model_json(datum, items=list_json(_VALUES, datum.items)) for datum in data] for data in batch.data]
    lists = [f"[{','.join(data)}]" for data in zipped]
    return parts | {"data": f"[{','.join(lists)}]"}


def _sizes(body: Any) -> Sizes:
    """Count the parts of an unvalidated body; parts of an unexpected type count as 0 and fail in validation."""
    graph = _member(body, "graph")
    data = [datum for zipped in _list(_member(body, "data")) for datum in _list(zipped)]
    values = sum(len(_list(_member(datum, "items"))) for datum in data)
    nodes = _member(graph, "nodes")
    return Sizes(len(nodes) if isinstance(nodes, dict) else 0, len(_list(_member(graph, "edges"))), len(data), values)


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
