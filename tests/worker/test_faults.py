"""A queue item of which one operation fails, whichever it is: one terminal state, whole images, and the next item runs."""

import asyncio
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from invokeclone.kit.resources import Resources
from invokeclone.queue import service
from invokeclone.queue.batches import Batch
from invokeclone.queue.schemas import TERMINAL
from invokeclone.worker import loop as loop_module
from invokeclone.worker.context import make_context
from invokeclone.worker.loop import Loop
from invokeclone.worker.process import DatabaseQueue
from invokeclone.worker.runner import SessionRunner
from invokeclone.worker.tools import Tools
from tests.conftest import RecordedEvents
from tests.faults import Faults, check_images


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


async def test_each_operation_of_an_item_may_fail(
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
            assert await service.list_active(resources, [item_id]) == set()
        assert set(ends) == {"completed", "failed"}
        assert await items.end(await items.enqueue()) == "completed"
        await check_images(resources)
    finally:
        toys.CALL.clear()
        loop.stop()
        async with asyncio.timeout(30):
            await running
