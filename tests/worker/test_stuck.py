"""Nodes that never come back, in a real worker under the server's supervisor: the next item runs."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, service, store
from invokeclone.queue.batches import Batch
from invokeclone.server.supervision.supervisor import Supervisor

TOYS = Path(__file__).parent / "toys.py"


@pytest.fixture
async def real(resources: Resources, toys: ModuleType) -> AsyncIterator[Supervisor]:
    """Supervise a real worker that knows the toys, on a real queue."""
    settings = resources.settings.model_copy(update={"cancel_grace_s": 1.0})
    bus = Bus()
    resources.events = bus
    supervisor = Supervisor(
        settings,
        bus,
        lambda worker_id, reason: claims.fail_orphans(resources, worker_id, reason),
        command=(sys.executable, str(TOYS)),
        grace_s=3,
    )
    await supervisor.start()
    yield supervisor
    await supervisor.stop()


@pytest.mark.timeout(240)
async def test_nodes_that_never_return_do_not_block_the_queue(
    real: Supervisor, resources: Resources, tmp_path: Path
) -> None:
    statuses: list[tuple[int, str]] = []

    def hear(kind: Any, payload: dict[str, Any]) -> None:
        if kind.name == "queue_item_status_changed":
            statuses.append((payload["item_id"], payload["status"]))

    marker, bus = tmp_path / "running", resources.events
    assert isinstance(bus, Bus)
    bus.subscribe(hear)

    async def enqueue(node: dict[str, Any]) -> int:
        graph = {"id": "g", "nodes": {"a": {"id": "a", **node}}, "edges": []}
        batch = Batch.model_validate({"graph": graph, "runs": 1})
        return (await service.enqueue(resources, "default", batch)).item_ids[0]

    for how in ("sleep", "hold", "swallow"):
        stuck = await enqueue({"type": "toy_stuck", "how": how, "marker": str(marker)})
        after = await enqueue({"type": "toy_number", "value": 1})
        async with asyncio.timeout(60):
            while not marker.exists():
                await asyncio.sleep(0.05)
        marker.unlink()
        before = real.pids
        await service.cancel(resources, "default", stuck)
        async with asyncio.timeout(60):
            while (after, "completed") not in statuses:
                await asyncio.sleep(0.05)
        async with resources.database.read() as connection:
            assert await store.get_status(connection, stuck) == "canceled"
        terminal = [status for item, status in statuses if item == stuck and status != "in_progress"]
        assert terminal == ["canceled"]
        assert real.pids != before
