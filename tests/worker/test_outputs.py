"""What nodes give out stays within the limits and can be stored: each case is what an ordinary account can enqueue."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from invokeclone.graph.invocations import registry
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.resources import Resources
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.loop import Outcome
from invokeclone.worker.runner import SessionRunner

registry.discover()

Run = Callable[..., Any]
DOUBLED = 22
"""So often a text of 8 characters is joined with itself: 32 MiB."""


@pytest.fixture
def run(tools: Tools, resources: Resources, canceled: threading.Event, make: Any) -> Run:
    async def act(nodes: dict[str, Any], *edges: tuple[str, str], **limits: int) -> Outcome:
        resources.settings = resources.settings.model_copy(update={"limits": Limits(**limits)})
        return await asyncio.to_thread(SessionRunner(tools, make_context).run, make.item(nodes, *edges), canceled)

    return act


def message(outcome: Outcome) -> str:
    assert outcome.status == "failed"
    assert outcome.error is not None
    return outcome.error.error_message


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "range_of_size", "size": 10**12},
        {"type": "range", "stop": 10**12},
        {"type": "random_range", "size": 10**12},
        {"type": "float_range", "steps": 10**12},
    ],
)
async def test_list_over_the_limit_is_not_built(run: Run, fields: dict[str, Any]) -> None:
    assert "limits.collection_items" in message(await run({"n": fields}))


async def test_list_at_the_limit_passes_and_one_above_fails(run: Run) -> None:
    nodes = {"n": {"type": "range_of_size", "size": 5, "use_cache": False}}
    assert (await run(nodes, collection_items=5)).status == "completed"
    assert "limits.collection_items" in message(await run(nodes, collection_items=4))
    collection = {"c": {"type": "integer_collection", "collection": [1, 2, 3], "use_cache": False}}
    assert "collection has 3 values" in message(await run(collection, collection_items=2))
    assert (await run(collection, collection_items=3)).status == "completed"


async def test_doubling_texts_stop_at_the_limit(run: Run) -> None:
    names = [f"j{number}" for number in range(DOUBLED)]
    nodes = {name: {"type": "string_join"} for name in names} | {"s": {"type": "string", "value": "x" * 8}}
    pairs = zip(["s", *names], names, strict=False)
    edges = [(f"{source}.value", f"{name}.string_{side}") for source, name in pairs for side in ("left", "right")]
    assert "limits.node_output_mib" in message(await run(nodes, *edges, node_output_mib=1))


@pytest.mark.parametrize("regex", [True, False])
async def test_replacement_stops_at_the_length_limit(run: Run, regex: bool) -> None:
    fields = {"string": "x" * 1100, "search_string": "x", "replace_string": "y" * 1000, "use_regex": regex}
    assert "limits.node_output_mib" in message(
        await run({"r": {"type": "string_replace", **fields}}, node_output_mib=1)
    )
    assert (await run({"r": {"type": "string_replace", **fields}}, node_output_mib=2)).status == "completed"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"type": "float_math", "operation": "MUL", "a": 1e308, "b": 10}, "value is inf"),
        ({"type": "integer_math", "operation": "EXP", "a": 10**9, "b": 10**9}, "exceeds 64 bits"),
        ({"type": "integer_math", "operation": "EXP", "a": 2, "b": 64}, "over 64 bits"),
        ({"type": "mul", "a": 2**60, "b": 2**60}, "over 64 bits"),
    ],
)
async def test_numbers_that_cannot_be_stored_fail_their_node(run: Run, fields: dict[str, Any], why: str) -> None:
    """Infinity became null in the session, which no caller of a workflow could read back."""
    assert why in message(await run({"n": fields}))


async def test_numbers_that_can_be_stored_pass(run: Run) -> None:
    assert (await run({"n": {"type": "integer_math", "operation": "EXP", "a": 2, "b": 63}})).status == "completed"
    assert (await run({"n": {"type": "integer_math", "operation": "EXP", "a": -1, "b": 10**9}})).status == "completed"


async def test_iterations_stop_at_the_node_limit(run: Run) -> None:
    nodes = {"n": {"type": "range_of_size", "size": 10}, "i": {"type": "iterate"}, "a": {"type": "add"}}
    edges = (("n.collection", "i.collection"), ("i.item", "a.a"))
    assert (await run(nodes, *edges, session_nodes=21)).status == "completed"
    assert "limits.session_nodes" in message(await run(nodes, *edges, session_nodes=20))
