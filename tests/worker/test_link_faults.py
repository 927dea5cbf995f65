"""One message between server and worker fails, whichever it is: each item ends once, rows have files, and the next item runs.

The worker lives on the test's own event loop, behind real pipes; what it is sent and what it sends passes `Wire`.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.resources import Resources
from invokeclone.queue import claims, service
from invokeclone.queue.batches import Batch
from invokeclone.queue.schemas import TERMINAL
from invokeclone.server.supervision import link as server_link
from invokeclone.server.supervision import supervisor as supervisor_module
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.worker import loop as loop_module
from invokeclone.worker import process
from invokeclone.worker.engine import Engine
from invokeclone.worker.link import LineReader, LineWriter
from tests.faults import check_images

KINDS = ("lost", "damaged", "nonsense", "cut")
NONSENSE = b'{"kind":"event","name":"queue_item_status_changed","data":"x","item_id":"x","settings":5,"body":7}\n'
"""A message whose parts have types that they should not have."""


class Wire:
    """Keeps messages, but for those that come again and again, and lets one of them fail."""

    def __init__(self) -> None:
        self.arm(0, "lost")

    def arm(self, failing: int, kind: str) -> None:
        """Let message number `failing` (from 1) fail; 0: none."""
        self.failing, self.kind = failing, kind
        self.lines: list[bytes] = []
        self.failed: bytes | None = None

    @property
    def is_over(self) -> bool:
        """Whether the worker has reported the end of an item, or has left a canceled one."""
        return any(b'"status":"completed"' in line or b'"kind":"stopping"' in line for line in self.lines)

    def passes(self, line: bytes) -> tuple[bytes, bool]:
        """Return what arrives of a line, and whether more can come after it."""
        if b'"kind":"heartbeat"' in line or b'"name":"invocation_progress"' in line:
            return line, True
        self.lines.append(line)
        if len(self.lines) != self.failing:
            return line, True
        self.failed = line
        arrives = {"lost": b"", "damaged": line[: len(line) // 2] + b"\xff\n", "nonsense": NONSENSE, "cut": line[:9]}
        return arrives[self.kind], self.kind != "cut"


class LocalWorker:
    """A worker on this event loop, with the methods of `ChildProcess`."""

    numbers = itertools.count(1)

    def __init__(self, wire: Wire) -> None:
        self.pid = next(self.numbers)
        self.unread = 0
        self._wire = wire
        self._status = 0
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._incoming, self._to_worker = os.pipe()
        self._from_worker, self._outgoing = os.pipe()
        self._open = self._heard = True
        loop = asyncio.get_running_loop()
        self._pump = threading.Thread(target=self._hand_on, args=(loop,), daemon=True)
        self._pump.start()
        self._task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        """Do what `process.serve` does in a process of its own."""
        reader, writer = LineReader(self._incoming), LineWriter(self._outgoing)
        try:
            hello = await asyncio.to_thread(reader.first)
            if hello is not None:
                await process.Process(Settings(**hello["settings"]), "cpu", reader, writer, hello["worker_id"]).run()
        except (ValueError, KeyError, TypeError):
            self._status = 1  # a traceback, in a process
        finally:
            writer.close(5)
            self.close_stdin()
            os.close(self._outgoing)

    def _hand_on(self, loop: asyncio.AbstractEventLoop) -> None:
        with os.fdopen(self._from_worker, "rb") as lines:
            for line in lines:
                loop.call_soon_threadsafe(self._arrive, line)
        loop.call_soon_threadsafe(self._lines.put_nowait, b"")

    def _arrive(self, line: bytes) -> None:
        if self._heard:
            arrives, self._heard = self._wire.passes(line)
            if arrives:
                self._lines.put_nowait(arrives)
            if not self._heard:
                self._lines.put_nowait(b"")

    def send(self, line: bytes) -> None:
        if self._open:
            arrives, goes_on = self._wire.passes(line)
            with contextlib.suppress(BrokenPipeError):
                os.write(self._to_worker, arrives)
            if not goes_on:
                self.close_stdin()

    async def line(self) -> bytes:
        return await self._lines.get()

    def close_stdin(self) -> None:
        if self._open:
            self._open = False
            os.close(self._to_worker)

    async def wait(self) -> int:
        await asyncio.shield(self._task)
        return self._status

    def terminate(self) -> None:
        self.kill()

    def kill(self) -> None:
        """Have it end as it does when its server is gone; a task can't be killed in any harder way."""
        if not self._task.done():
            self._status = -signal.SIGKILL
        self.close_stdin()

    async def close(self) -> None:
        self.kill()
        await asyncio.shield(self._task)


class Queue:
    """A server's queue with its supervisor."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self.supervisor = Supervisor(resources.settings, resources.events, self._orphan, first_delay=0.001)  # type: ignore[arg-type]

    async def _orphan(self, worker_id: str, reason: str) -> None:
        await claims.fail_orphans(self.resources, worker_id, reason)

    async def enqueue(self) -> int:
        graph = {"id": "g", "nodes": {"a": {"id": "a", "type": "toy_context"}}, "edges": []}
        batch = Batch.model_validate({"graph": graph, "runs": 1})
        return (await service.enqueue(self.resources, "default", batch)).item_ids[0]

    async def status(self, item_id: int) -> str:
        async with self.resources.database.read() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            ((status,),) = await raw.execute_fetchall("SELECT status FROM session_queue WHERE item_id = ?", (item_id,))
        return str(status)

    async def reaches(self, item_id: int, statuses: Collection[str]) -> str:
        async with asyncio.timeout(60):
            while (status := await self.status(item_id)) not in statuses:
                await asyncio.sleep(0.005)
        return status


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    """Replace worker processes by local ones."""
    fake_wire = Wire()

    async def start(*_command: object, **_options: object) -> LocalWorker:
        return LocalWorker(fake_wire)

    monkeypatch.setattr(server_link, "ChildProcess", SimpleNamespace(start=start))
    monkeypatch.setattr(server_link, "DRAIN_S", 0.05)
    monkeypatch.setattr(process, "_exit_after", lambda _seconds: None)
    monkeypatch.setattr(Engine, "warm_up", lambda _engine, _then: None)
    for name, value in {"HEARTBEAT_S": 0.05, "POLL_S": 0.02}.items():
        monkeypatch.setattr(loop_module, name, value)
    return fake_wire


@contextlib.asynccontextmanager
async def running_queue(resources: Resources) -> AsyncIterator[Queue]:
    queue = Queue(resources)
    await queue.supervisor.start()
    try:
        yield queue
    finally:
        await queue.supervisor.stop()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


Run = Callable[..., Awaitable[str]]


@pytest.fixture
def run(resources: Resources, wire: Wire, toys: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Return what runs an item on a new worker while one message fails, checks what is left, and returns how the item ended."""
    resources = Resources(resources.settings, resources.database, Bus())
    stays, began = threading.Event(), threading.Event()

    def node(context: Any) -> None:
        context.images.save(Image.new("RGB", (8, 8), "red"))
        began.set()  # a cancellation during the save would end the item without a message
        while stays.is_set():
            context.util.signal_progress("Half", 0.5)
            time.sleep(0.005)

    async def act(failing: int, kind: str, *, cancel: bool = False) -> str:
        monkeypatch.setattr(supervisor_module, "SILENCE_LIMIT", 0.5)
        wire.arm(failing, kind)
        began.clear()
        if cancel:
            stays.set()
        async with running_queue(resources) as queue:
            await queue.supervisor.ready(1)
            item_id = await queue.enqueue()
            if cancel:
                while not began.is_set() and await queue.status(item_id) not in TERMINAL:
                    await asyncio.sleep(0.005)
                await service.cancel(resources, "default", item_id)
            end = await queue.reaches(item_id, TERMINAL)
            if not failing:
                await until(lambda: wire.is_over)
                return end
            with contextlib.suppress(TimeoutError):  # it may be one that follows the end; not each run has as many
                async with asyncio.timeout(1):
                    await until(lambda: wire.failed is not None)
            stays.clear()
            monkeypatch.setattr(supervisor_module, "SILENCE_LIMIT", 600.0)
            async with asyncio.timeout(60):  # a worker that is being replaced may take one of them along
                while await queue.reaches(await queue.enqueue(), TERMINAL) != "completed":
                    pass
            assert await queue.status(item_id) == end
            await check_images(resources)
        return end

    toys.CALL.append(node)
    yield act
    toys.CALL.clear()


async def sweep(run: Run, faults: Iterable[tuple[int, str]], *, cancel: bool = False) -> set[str]:
    return {await run(number, kind, cancel=cancel) for number, kind in faults}


async def test_sampled_message_failures_are_survived(run: Run) -> None:
    """The hello is lost, the link breaks in the middle of a wake, and two messages of the worker are damaged."""
    assert await sweep(run, [(1, "lost"), (3, "cut"), (4, "damaged"), (5, "nonsense")]) <= {"completed", "failed"}


async def test_lost_cancel_is_detected_in_the_row(run: Run, wire: Wire) -> None:
    assert await run(0, "lost", cancel=True) == "canceled"
    (number,) = [position for position, line in enumerate(wire.lines, 1) if b'"kind":"cancel"' in line]
    assert await run(number, "lost", cancel=True) == "canceled"


@pytest.mark.slow
@pytest.mark.parametrize("cancel", [False, True], ids=["completed", "canceled"])
@pytest.mark.parametrize("kind", KINDS)
async def test_failure_of_each_message_is_survived(run: Run, wire: Wire, kind: str, cancel: bool) -> None:
    assert await run(0, kind, cancel=cancel) == ("canceled" if cancel else "completed")
    messages = len(wire.lines)
    assert messages >= 8
    ends = await sweep(run, [(number, kind) for number in range(1, messages + 1)], cancel=cancel)
    assert ends <= {"completed", "failed", "canceled"}
