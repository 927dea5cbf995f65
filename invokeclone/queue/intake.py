"""Batches on their way in: sizes first, then validation, off the event loop when the graph or its data are large."""

from collections.abc import Mapping
from typing import Any

from invokeclone.kit.limits import Limits
from invokeclone.kit.offload import off_loop
from invokeclone.kit.requests import validated
from invokeclone.queue.batches import Batch, Sizes
from invokeclone.queue.schemas import EnqueueBatchResult

FEW = 200
"""Nodes, edges or values up to which a thread would cost more than it saves."""


async def read_batch(sent: Any, limits: Limits) -> Batch:
    """Return the batch in a request's body. Raises RequestValidationError, and Unprocessable for what is over a limit."""
    sizes = _sizes(sent)
    sizes.check(limits)
    if max(sizes) <= FEW:
        return validated(Batch, sent, "batch")
    return await off_loop(lambda: validated(Batch, sent, "batch"))


async def answer(result: EnqueueBatchResult) -> str:
    """Return the result as JSON text; it repeats the batch."""
    if max(result.batch.sizes) <= FEW:
        return result.model_dump_json()
    return await off_loop(result.model_dump_json)


def _sizes(sent: Any) -> Sizes:
    """Count what a body holds, whatever its form; what has another form than a batch fails in validation."""
    graph = _member(sent, "graph")
    data = [datum for zipped in _list(_member(sent, "data")) for datum in _list(zipped)]
    values = sum(len(_list(_member(datum, "items"))) for datum in data)
    nodes = _member(graph, "nodes")
    return Sizes(len(nodes) if isinstance(nodes, dict) else 0, len(_list(_member(graph, "edges"))), len(data), values)


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
