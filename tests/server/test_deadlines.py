"""Canceled items that do not stop: how long they have, and what counts as stopping."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.queue.events import QueueItemStatusChangedEvent
from invokeclone.server.supervision.deadlines import CancelDeadline
from invokeclone.server.supervision.workers import Worker
from tests.server.test_supervisor import STATUS_CHANGED, running_supervisor, until


class Timers:
    """A deadline whose clock the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.overdue: list[int] = []
        self.waiting: list[tuple[float, Callable[[], None]]] = []
        self.deadline = CancelDeadline(self.overdue.append)
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self)

    def call_later(self, seconds: float, act: Callable[[], None]) -> "Handle":
        self.waiting.append((seconds, act))
        return Handle(self, self.waiting[-1])

    def expire(self) -> None:
        for timer in list(self.waiting):
            self.waiting.remove(timer)
            timer[1]()


class Handle:
    def __init__(self, timers: Timers, timer: tuple[float, Callable[[], None]]) -> None:
        self.timers, self.timer = timers, timer

    def cancel(self) -> None:
        if self.timer in self.timers.waiting:
            self.timers.waiting.remove(self.timer)


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    return Timers(monkeypatch)


def test_an_item_that_does_not_stop_is_overdue_once(timers: Timers) -> None:
    timers.deadline.start(5, 3)
    timers.deadline.start(5, 9)
    assert [seconds for seconds, _ in timers.waiting] == [3]
    timers.deadline.running(5)
    timers.expire()
    timers.expire()
    assert timers.overdue == [5]


@pytest.mark.parametrize("end", [None, 6])
def test_finished_item_is_not_overdue(timers: Timers, end: int | None) -> None:
    timers.deadline.start(5, 3)
    timers.deadline.running(end)
    assert timers.waiting == []
    timers.deadline.start(6, 3)
    timers.expire()
    assert timers.overdue == [6]


def test_checkpoint_extends_the_deadline_only_once(timers: Timers) -> None:
    timers.deadline.start(5, 3)
    timers.deadline.stopping(4, 8)
    timers.deadline.stopping(5, 7)
    timers.deadline.stopping(5, 9)
    assert [seconds for seconds, _ in timers.waiting] == [7]
    timers.expire()
    assert timers.overdue == [5]


async def starts(notes: Callable[[], list[str]], count: int) -> None:
    await until(lambda: len([line for line in notes() if line.startswith("start")]) == count)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    path = tmp_path / "notes"
    monkeypatch.setenv("FAKE_WORKER_LOG", str(path))
    return lambda: path.read_text().splitlines() if path.exists() else []


def cancel_event(item_id: int) -> QueueItemStatusChangedEvent:
    return QueueItemStatusChangedEvent.model_construct(item_id=item_id, status="canceled", started_at="now")


@pytest.mark.parametrize("first", ["running", "canceled", "silent"])
async def test_a_worker_that_does_not_stop_is_replaced_without_delay(
    settings: Settings, notes: Callable[[], list[str]], first: str
) -> None:
    """Whichever of claim and cancel the server hears of first, or of no claim; heartbeats of the item are no progress."""
    settings = settings.model_copy(update={"cancel_grace_s": 0.2})
    async with running_supervisor(settings) as (supervisor, bus, orphans):
        await supervisor.ready(30)
        running = {"name": "queue_item_status_changed", "data": STATUS_CHANGED}
        if first == "canceled":
            bus.emit(cancel_event(5))
        beats = [{"kind": "heartbeat", "item_id": 5}] * 3
        if first != "silent":
            await supervisor.ask_all("say", {**running, "messages": beats})
        if first != "canceled":
            bus.emit(cancel_event(5))
        await starts(notes, 2)
        assert [reason for _, reason in orphans.failed] == [
            "the worker for cpu is replaced: item 5 was canceled and did not stop"
        ]


async def test_worker_that_stops_in_time_is_not_replaced(settings: Settings, notes: Callable[[], list[str]]) -> None:
    settings = settings.model_copy(update={"cancel_grace_s": 0.3})
    async with running_supervisor(settings) as (supervisor, bus, orphans):
        await supervisor.ready(30)
        await supervisor.ask_all("say", {"name": "queue_item_status_changed", "data": STATUS_CHANGED})
        bus.emit(cancel_event(5))
        await supervisor.ask_all("say", {"messages": [{"kind": "stopping", "item_id": 5}]})
        stale = {"kind": "heartbeat", "item_id": None, "received": 0}
        await supervisor.ask_all("say", {"messages": [stale]})
        assert supervisor._workers[0].deadline.item_id == 5
        await supervisor.ask_all("say", {"messages": [{"kind": "heartbeat", "item_id": None, "received": 100}]})
        await asyncio.sleep(0.8)
        assert orphans.failed == []
        assert len(notes()) == len([line for line in notes() if not line.startswith("start")]) + 1


class FakeLink:
    """A process that takes messages."""

    def send(self, message: dict[str, object]) -> None:
        pass


async def test_items_of_a_dead_process_set_its_successor_no_deadline() -> None:
    """Their failure is an event like a cancel's; it comes when no process runs, and must not kill the next one."""
    worker = Worker("cpu", link=FakeLink())  # type: ignore[arg-type]
    for _ in range(3):
        worker.send({"kind": "wake"})
    worker.expect_end(1, 60)
    worker.mark_lost("it died")
    worker.expect_end(1, 60)
    assert worker.deadline.item_id is None


async def test_heartbeats_of_a_new_process_count_from_its_own_messages() -> None:
    worker = Worker("cpu", link=FakeLink())  # type: ignore[arg-type]
    for _ in range(3):
        worker.send({"kind": "wake"})
    worker.expect_end(1, 60)
    worker.mark_lost("it died")
    worker.link = FakeLink()  # type: ignore[assignment]
    worker.expect_end(2, 60)
    worker.on_heartbeat({"received": 0, "item_id": 3})
    assert worker.deadline.item_id is None
