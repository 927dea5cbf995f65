"""One session: the order of events, their fields, errors, cancel, the cache, what is kept and what is let go."""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import EVENTS
from invokeclone.kit.resources import Resources
from invokeclone.queue.rows import ClaimedItem
from invokeclone.worker.cache import InvocationCache
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.loop import Outcome
from invokeclone.worker.runner import SessionRunner

NUMBERS = {
    "one": {"type": "toy_number", "value": 3},
    "sum": {"type": "toy_add", "b": 4},
    "all": {"type": "collect"},
}
EDGES = (("one.value", "sum.a"), ("sum.value", "all.item"))

Run = Callable[..., Any]


@pytest.fixture
def run(tools: Tools, canceled: threading.Event) -> Run:
    async def act(item: ClaimedItem, using: Tools = tools) -> Outcome:
        return await asyncio.to_thread(SessionRunner(using, make_context).run, item, canceled)

    return act


def results(outcome: Outcome) -> dict[str, Any]:
    """Return the outputs by source node."""
    assert outcome.session_json is not None
    session = orjson.loads(f'{{"graph":{{}}{outcome.session_json}')
    return {session["prepared_source_mapping"][node]: output for node, output in session["results"].items()}


async def test_each_node_is_started_and_completed_in_order(run: Run, make: Any, channel: Any) -> None:
    outcome = await run(make.item(NUMBERS, *EDGES))
    assert outcome.status == "completed"
    assert outcome.error is None
    expected = [
        (name, node) for node in ("one", "sum", "all") for name in ("invocation_started", "invocation_complete")
    ]
    assert channel.node_events() == expected
    assert results(outcome)["all"]["collection"] == [7]
    session = orjson.loads(f'{{"graph":{{}}{outcome.session_json}')
    assert session["executed_history"] == ["one", "sum", "all"]
    assert session["errors"] == {}


async def test_payloads_are_those_of_the_event_classes(run: Run, make: Any, channel: Any) -> None:
    nodes = {**NUMBERS, "steps": {"type": "toy_steps", "seconds": 0.01}, "bad": {"type": "toy_fail"}}
    outcome = await run(make.item(nodes, *EDGES, ("steps.value", "bad.how")))
    assert outcome.announce
    outcome.announce()
    names = set()
    for name, data in channel.sent:
        kind = EVENTS[name]
        assert set(data) == set(kind.model_fields), name
        kind.model_validate(data)
        names.add(name)
    assert names == {"invocation_started", "invocation_progress", "invocation_complete", "invocation_error"}
    started = channel.sent[0][1]
    assert started["invocation"]["type"]
    assert started["invocation"]["is_intermediate"] is False
    assert {"queue_id": "default", "item_id": 1, "origin": "generate", "user_id": "system"}.items() <= started.items()


async def test_collections_stay_out_of_events_but_not_of_results(run: Run, make: Any, channel: Any) -> None:
    await run(make.item(NUMBERS, *EDGES))
    collect = [data for _, data in channel.sent if data["invocation_source_id"] == "all"]
    assert [data["invocation"]["collection"] for data in collect] == [[], []]
    assert collect[-1]["result"]["collection"] == [7]


async def test_a_node_that_fails_ends_the_session_and_its_error_waits_for_the_status(
    run: Run, make: Any, channel: Any
) -> None:
    nodes = {"bad": {"type": "toy_fail"}, "after": {"type": "toy_add"}}
    outcome = await run(make.item(nodes, ("bad.value", "after.a")))
    assert outcome.status == "failed"
    assert outcome.error[:2] == ("ValueError", "toys break")
    assert "Traceback" in outcome.error.error_traceback
    assert not outcome.broken
    assert channel.node_events() == [("invocation_started", "bad")]
    outcome.announce()
    name, data = channel.sent[-1]
    assert name == "invocation_error"
    assert (data["error_type"], data["error_message"]) == ("ValueError", "toys break")
    session = orjson.loads(f'{{"graph":{{}}{outcome.session_json}')
    assert list(session["errors"].values()) == ["ValueError: toys break"]


async def test_node_calling_exit_only_fails(run: Run, make: Any) -> None:
    outcome = await run(make.item({"bad": {"type": "toy_fail", "how": "exit"}}))
    assert (outcome.status, outcome.error.error_type) == ("failed", "SystemExit")


async def test_invalid_input_value_is_an_error_without_a_started_event(run: Run, make: Any, channel: Any) -> None:
    nodes = {"big": {"type": "toy_number", "value": 99}, "small": {"type": "toy_bounded"}}
    outcome = await run(make.item(nodes, ("big.value", "small.value")))
    assert outcome.status == "failed"
    assert outcome.error.error_type == "NodeInputError"
    assert "value" in outcome.error.error_message
    outcome.announce()
    assert channel.node_events() == [
        ("invocation_started", "big"),
        ("invocation_complete", "big"),
        ("invocation_error", "small"),
    ]


async def test_missing_input_is_an_error_after_the_started_event(run: Run, make: Any, channel: Any) -> None:
    outcome = await run(make.item({"needy": {"type": "toy_needy"}}))
    assert outcome.error.error_type == "RequiredConnectionException"
    assert "toy_needy" in outcome.error.error_message
    assert channel.node_events() == [("invocation_started", "needy")]


async def test_a_session_that_can_not_be_read_raises_to_the_loop(run: Run, make: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        await run(replace(make.item(NUMBERS), session="{"))


async def test_cancel_inside_a_node_emits_no_error_event(
    run: Run, make: Any, channel: Any, canceled: threading.Event
) -> None:
    item = make.item({"steps": {"type": "toy_steps"}, "after": {"type": "toy_add"}}, ("steps.value", "after.a"))
    running = asyncio.create_task(run(item))
    while "invocation_progress" not in channel.names():
        await asyncio.sleep(0.005)
    canceled.set()
    outcome = await running
    assert (outcome.status, outcome.error, outcome.announce) == ("canceled", None, None)
    assert set(channel.names()) == {"invocation_started", "invocation_progress"}


async def test_cancel_between_nodes_runs_no_further_one(run: Run, make: Any, toys: ModuleType, canceled: Any) -> None:
    item = make.item({"ask": {"type": "toy_context"}, "after": {"type": "toy_add"}}, ("ask.value", "after.a"))
    toys.CALL.append(lambda _context: canceled.set())
    outcome = await run(item)
    toys.CALL.clear()
    assert outcome.status == "canceled"
    assert set(results(outcome)) == {"ask"}


async def test_cached_outputs_are_not_recomputed(run: Run, make: Any, channel: Any, tools: Tools) -> None:
    await run(make.item(NUMBERS, *EDGES))
    first = list(channel.node_events())
    channel.sent.clear()
    outcome = await run(make.item(NUMBERS, *EDGES))
    assert channel.node_events() == first
    assert results(outcome)["sum"]["value"] == 7
    status = tools.cache.status()
    assert (status["hits"], status["misses"], status["size"]) == (2, 2, 2)


async def test_nodes_with_use_cache_false_run_again(run: Run, make: Any, tools: Tools) -> None:
    nodes = {"one": {"type": "toy_number", "value": 3, "use_cache": False}}
    await run(make.item(nodes))
    await run(make.item(nodes))
    assert tools.cache.status()["misses"] == 0
    assert tools.cache.status()["size"] == 0


async def test_cache_of_size_zero_is_disabled(run: Run, make: Any, tools: Tools) -> None:
    without = replace(tools, cache=InvocationCache(0))
    for _ in range(2):
        assert (await run(make.item(NUMBERS, *EDGES), without)).status == "completed"
    assert without.cache.status()["misses"] == 0


async def test_canceled_and_failed_nodes_are_not_cached(run: Run, make: Any, tools: Tools) -> None:
    await run(make.item({"bad": {"type": "toy_fail"}}))
    assert tools.cache.status()["size"] == 0


async def test_tensors_are_kept_while_an_output_references_them(
    run: Run, make: Any, tools: Tools, toys: ModuleType
) -> None:
    pytest.importorskip("torch")
    import torch

    names: list[str] = []
    toys.CALL.append(lambda context: names.append(context.tensors.save(torch.ones(2))))
    await run(make.item({"ask": {"type": "toy_context"}}))
    toys.CALL.clear()
    assert len(tools.tensors) == 0
    output = toys.ToyNameOutput(name=tools.tensors.save(torch.ones(2), "Tensor"))
    tools.cache.save(b"k", output, output.model_dump_json().encode())
    await run(make.item(NUMBERS, *EDGES))
    assert len(tools.tensors) == 1
    tools.cache.clear()
    await run(make.item(NUMBERS, *EDGES))
    assert len(tools.tensors) == 0


async def test_iteration_gives_events_for_every_copy(run: Run, make: Any, channel: Any) -> None:
    nodes = {
        "over": {"type": "iterate"},
        "sum": {"type": "toy_add", "b": 10},
        "all": {"type": "collect"},
        "list": {"type": "collect"},
        "a": {"type": "toy_number", "value": 1},
        "b": {"type": "toy_number", "value": 2},
    }
    edges = (
        ("a.value", "list.item"),
        ("b.value", "list.item"),
        ("list.collection", "over.collection"),
        ("over.item", "sum.a"),
        ("sum.value", "all.item"),
    )
    outcome = await run(make.item(nodes, *edges))
    assert outcome.status == "completed"
    assert results(outcome)["all"]["collection"] == [11, 12]
    assert channel.node_events().count(("invocation_complete", "sum")) == 2
    iterated = [data for _, data in channel.sent if data["invocation_source_id"] == "over"]
    assert all(data["invocation"]["collection"] == [] for data in iterated)


async def test_profile_is_written_when_enabled(
    run: Run, make: Any, tools: Tools, resources: Resources, tmp_path: Path
) -> None:
    settings = Settings(root=tmp_path / "root", profile_graphs=True, profile_prefix="p")
    item = make.item(NUMBERS, *EDGES)
    await run(item, replace(tools, resources=replace(resources, settings=settings)))
    assert (settings.profiles_path / f"p_{item.session_id}.prof").stat().st_size > 0


async def test_session_statistics_are_logged(run: Run, make: Any, logged: list[logging.LogRecord]) -> None:
    await run(make.item(NUMBERS, *EDGES))
    text = "\n".join(record.getMessage() for record in logged)
    assert "toy_add" in text
    assert "TOTAL GRAPH EXECUTION TIME" in text


async def test_log_records_identify_the_item(run: Run, make: Any, logged: list[logging.LogRecord]) -> None:
    await run(make.item({"bad": {"type": "toy_fail"}}, item_id=8, user_id="alice"))
    failed, figures = (vars(record) for record in logged if record.name == "invokeclone.worker.runner")
    common = {"item_id": 8, "batch_id": "b", "user_id": "alice", "device": "cpu"}
    assert failed.items() >= {"action": "run_node", **common}.items()
    assert figures.items() >= {"action": "run_item", "status": "failed", **common}.items()
    assert figures["seconds"] >= 0


@pytest.mark.parametrize("times", [1, 2])
async def test_a_node_that_runs_out_of_the_devices_memory_is_invoked_once_more(
    times: int, tools: Tools, run: Run, make: Any, toys: ModuleType, channel: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    from invokeclone.engine.cache import ModelCache
    from tests.counted_memory import MB, FakeMemory

    cache = ModelCache(Settings(device_working_mem_gb=0), "cpu", FakeMemory(10 * MB))
    idle = cache.get("a", lambda: torch.nn.Linear(4, 4))
    with cache.hold(idle):
        pass
    tools.engine._cache = cache
    taken: list[int] = []

    def compute(_context: Any) -> None:
        taken.append(idle.on_device)
        if len(taken) <= times:
            raise torch.OutOfMemoryError("out of memory (pretended)")

    toys.CALL.append(compute)
    try:
        outcome = await run(make.item({"ask": {"type": "toy_context"}}))
    finally:
        toys.CALL.clear()
    assert taken == [idle.size, 0]
    assert outcome.status == ("completed" if times == 1 else "failed")
    assert channel.names().count("invocation_started") == 1
    assert "ran out of memory, it is invoked again" in caplog.text


async def test_other_errors_are_not_tried_again(run: Run, make: Any, toys: ModuleType) -> None:
    calls: list[int] = []

    def fail(_context: Any) -> None:
        calls.append(1)
        raise RuntimeError("broken")

    toys.CALL.append(fail)
    try:
        outcome = await run(make.item({"ask": {"type": "toy_context"}}))
    finally:
        toys.CALL.clear()
    assert outcome.status == "failed"
    assert len(calls) == 1
