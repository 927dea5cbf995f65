"""A queue item of which one operation fails, whichever it is: one terminal state, whole images, and the next item runs."""

import asyncio
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, service, store
from invokeclone.queue.batches import Batch
from invokeclone.queue.bulk import ItemFilter
from invokeclone.queue.schemas import TERMINAL
from invokeclone.worker import loop as loop_module
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.loop import Loop
from invokeclone.worker.process import DatabaseQueue
from invokeclone.worker.runner import SessionRunner
from tests.conftest import RecordedEvents
from tests.faults import Faults, check_images, image_names


class Pulse:
    def heartbeat(self, item_id: int | None) -> None:
        """Nobody listens."""


class Items:
    """Enqueues items and waits for their ends."""

    def __init__(self, resources: Resources, events: RecordedEvents, loop: Loop) -> None:
        self.resources, self.events, self.loop = resources, events, loop

    async def enqueue(self) -> int:
        graph = {"id": "g", "nodes": {"a": {"id": "a", "type": "toy_context"}}, "edges": []}
        batch = Batch.model_validate({"graph": graph, "runs": 1})
        return (await service.enqueue(self.resources, "default", batch)).item_ids[0]

    def statuses(self, item_id: int) -> list[str]:
        return [
            event.status  # type: ignore[attr-defined]
            for event in self.events.sent
            if event.name == "queue_item_status_changed" and event.item_id == item_id  # type: ignore[attr-defined]
        ]

    async def end(self, item_id: int) -> str:
        self.loop.wake()
        async with asyncio.timeout(30):
            while not (ends := [status for status in self.statuses(item_id) if status in TERMINAL]):
                await asyncio.sleep(0.002)
                self.loop.wake()
        assert len(ends) == 1
        return ends[0]


async def test_failure_of_each_item_operation_is_survived(
    resources: Resources, events: RecordedEvents, tools: Tools, toys: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "RETRY_S", (0.001, 0.002))
    monkeypatch.setattr(loop_module, "PAUSE_AFTER_ERROR_S", 0.001)
    monkeypatch.setattr(loop_module, "HEARTBEAT_S", 3600)
    monkeypatch.setattr(loop_module, "POLL_S", 3600)
    tools = replace(tools, resources=resources)
    loop = Loop(DatabaseQueue(resources, "cpu", tools.engine), SessionRunner(tools, make_context), Pulse())
    faults = Faults(monkeypatch, resources.settings.root)

    def save(context: Any) -> None:
        context.images.save(Image.new("RGB", (8, 8), "red"))

    toys.CALL.append(save)
    running = asyncio.create_task(loop.run())
    items = Items(resources, events, loop)
    try:
        assert await items.end(await items.enqueue()) == "completed"
        first = await items.enqueue()
        with faults.armed(0):
            assert await items.end(first) == "completed"
        operations = faults.count
        assert operations >= 12
        ends = []
        for number in range(1, operations + 1):
            item_id = await items.enqueue()
            with faults.armed(number):
                ends.append(await items.end(item_id))
            await check_images(resources)
            assert await claims.list_active(resources, [item_id]) == set()
        assert set(ends) == {"completed", "failed"}
        assert await items.end(await items.enqueue()) == "completed"
        await check_images(resources)
    finally:
        toys.CALL.clear()
        loop.stop()
        async with asyncio.timeout(30):
            await running


@pytest.mark.parametrize("who", ["worker", "server"])
async def test_process_death_at_each_item_operation_is_survived(
    who: str,
    resources: Resources,
    events: RecordedEvents,
    tools: Tools,
    toys: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the claim, in the run, at the commit and between them: what then puts the queue in order leaves one terminal state.

    A worker that dies has its item failed by the server; a server that dies cancels at its next start what was running.
    """
    monkeypatch.setattr(loop_module, "RETRY_S", (0.001, 0.002))
    monkeypatch.setattr(loop_module, "PAUSE_AFTER_ERROR_S", 0.001)
    monkeypatch.setattr(loop_module, "HEARTBEAT_S", 3600)
    monkeypatch.setattr(loop_module, "POLL_S", 3600)
    tools = replace(tools, resources=resources)
    faults = Faults(monkeypatch, resources.settings.root)

    def save(context: Any) -> None:
        context.images.save(Image.new("RGB", (8, 8), "red"))

    toys.CALL.append(save)

    async def run(failing: int) -> tuple[int, int]:
        """Run an item by a worker of its own that dies at an operation, if it is not 0; return item and operations."""
        loop = Loop(DatabaseQueue(resources, "cpu", tools.engine), SessionRunner(tools, make_context), Pulse())
        items = Items(resources, events, loop)
        item_id = await items.enqueue()
        with faults.armed(failing, forever=True):
            running = asyncio.create_task(loop.run())
            ending = asyncio.create_task(items.end(item_id))
            dying = asyncio.create_task(asyncio.to_thread(faults.dead.wait, 30))
            await asyncio.wait([ending, dying] if failing else [ending], return_when=asyncio.FIRST_COMPLETED)
            operations = faults.count
            ending.cancel()
            await asyncio.wait([ending])
            await asyncio.sleep(0.005)  # it then waits without having been woken: wait_for loses a cancel otherwise
            while not running.done():
                running.cancel()
                await asyncio.wait([running], timeout=2)
            await asyncio.to_thread(loop._thread.shutdown)
            faults.dead.set()
            await dying
        return item_id, operations

    try:
        _, operations = await run(0)
        assert operations >= 12
        ends = set()
        for number in range(1, operations + 1):
            item_id, _ = await run(number)
            if who == "worker":
                await claims.fail_orphans(resources, "cpu", "the worker died")
            else:
                await claims.recover(resources)
            (item,) = await store.list_items(resources.database, [item_id])
            ends.add(item.status)
            if item.status == "pending":  # it died before the claim was written
                item_id, _ = await run(0)
                await service.cancel_idle(resources, ItemFilter(queue_id="default"))
            assert await claims.list_active(resources, [item_id]) == set()
            folder = resources.settings.outputs_path / "images"
            assert await image_names(resources) <= {path.name for path in folder.glob("*.png")}
        assert ends == {"pending", "failed" if who == "worker" else "canceled", "completed"}
    finally:
        toys.CALL.clear()
