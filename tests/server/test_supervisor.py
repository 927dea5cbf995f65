"""The supervisor against a fake worker process: starts, hints, requests, deaths, restarts, ends."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from invokeclone.images.events import ImagesDeletedEvent
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import Unavailable
from invokeclone.kit.events import Bus, Event
from invokeclone.kit.workers import NoWorkerRunning
from invokeclone.models.records.events import ModelsChangedEvent
from invokeclone.queue.events import (
    BatchEnqueuedEvent,
    ItemsClearedEvent,
    ProcessorResumedEvent,
    QueueItemsRetriedEvent,
    QueueItemStatusChangedEvent,
)
from invokeclone.server.supervision import link as server_link
from invokeclone.server.supervision.supervisor import Supervisor

FAKE = Path(__file__).with_name("fake_worker.py")
STATUS_CHANGED = {"item_id": 5, "queue_id": "default", "status": "in_progress", "user_id": "system"}


class Orphans:
    """Keeps which devices' items were failed and why."""

    def __init__(self) -> None:
        self.failed: list[tuple[str, str]] = []

    async def fail(self, worker_id: str, reason: str) -> None:
        self.failed.append((":".join(worker_id.split(":")[2:-1]), reason))  # server:INSTANCE:DEVICE:PID


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    path = tmp_path / "notes"
    monkeypatch.setenv("FAKE_WORKER_LOG", str(path))
    return lambda: path.read_text().splitlines() if path.exists() else []


@asynccontextmanager
async def running_supervisor(
    settings: Settings, mode: str = "good", *, patience: float = 20.0
) -> AsyncIterator[tuple[Supervisor, Bus, Orphans]]:
    bus, orphans = Bus(), Orphans()
    command = (sys.executable, "-S", str(FAKE), mode)
    supervisor = Supervisor(settings, bus, orphans.fail, command=command, grace_s=patience, first_delay=0.01)
    await supervisor.start()
    try:
        yield supervisor, bus, orphans
    finally:
        await supervisor.stop()


async def until(condition: Callable[[], object], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_worker_answers_requests(settings: Settings) -> None:
    async with running_supervisor(settings) as (supervisor, _bus, _orphans):
        assert await supervisor.ready(30)
        assert await supervisor.ask_all("cache_status") == [{"device": "cpu", "name": "cache_status"}]


async def test_workers_get_the_settings_of_the_allocator(settings: Settings, notes: Callable[[], list[str]]) -> None:
    changed = settings.model_copy(update={"pytorch_cuda_alloc_conf": "backend:cudaMallocAsync"})
    async with running_supervisor(changed) as (supervisor, _bus, _orphans):
        assert await supervisor.ready(30)
    assert "allocator backend:cudaMallocAsync" in notes()


async def test_ask_one_returns_the_answer_or_raises_the_failure(settings: Settings) -> None:
    settings = settings.model_copy(update={"generation_devices": ["cuda:0", "cuda:1"]})
    async with running_supervisor(settings) as (supervisor, _bus, _orphans):
        assert (await supervisor.ask_one("anything", {}, 30, startup_s=30))["name"] == "anything"
        with pytest.raises(TimeoutError):
            await supervisor.ask_one("silence", {}, 0.05, startup_s=0.05)
        with pytest.raises(Unavailable, match="no"):
            await supervisor.ask_one("refuse", {}, 30, startup_s=30)
        with pytest.raises(Unavailable, match="SIGKILL"):
            await supervisor.ask_one("die", {}, 30, startup_s=30)


async def test_ask_one_fails_when_no_worker_becomes_ready(settings: Settings) -> None:
    async with running_supervisor(settings, "mute", patience=20) as (supervisor, _bus, _orphans):
        with pytest.raises(Unavailable, match="no worker is ready"):
            await supervisor.ask_one("anything", {}, 0.05, startup_s=0.05)


async def test_ask_all_without_ready_workers_returns_nothing(settings: Settings) -> None:
    async with running_supervisor(settings, "mute", patience=20) as (supervisor, _bus, _orphans):
        await until(lambda: supervisor.pids)
        assert await supervisor.ask_all("cache_status") == []
        assert not await supervisor.ready(0.01)


async def test_a_refused_request_is_unavailable(settings: Settings) -> None:
    async with running_supervisor(settings) as (supervisor, _bus, _orphans):
        await supervisor.ready(30)
        with pytest.raises(Unavailable, match="no"):
            await supervisor.ask_all("refuse")


async def test_a_request_without_an_answer_times_out(settings: Settings) -> None:
    async with running_supervisor(settings) as (supervisor, _bus, _orphans):
        await supervisor.ready(30)
        with pytest.raises(Unavailable, match="TimeoutError"):
            await supervisor.ask_all("silence", seconds=0.05)


async def test_auto_starts_a_worker_for_each_device_found(settings: Settings) -> None:
    settings = settings.model_copy(update={"device": "auto"})
    async with running_supervisor(settings) as (supervisor, _bus, _orphans):
        await until(lambda: len(supervisor.pids) == 2)
        await supervisor.ready(30)
        while len(answers := await supervisor.ask_all("x")) < 2:
            await asyncio.sleep(0.01)
        assert [answer["device"] for answer in answers] == ["cuda:0", "cuda:1"]
        assert [device["name"] for device in supervisor.devices()] == ["One", "Two"]


async def test_listed_devices_get_a_worker_each(settings: Settings, notes: Callable[[], list[str]]) -> None:
    settings = settings.model_copy(update={"generation_devices": ["cpu", "mps"]})
    async with running_supervisor(settings):
        await until(lambda: len(notes()) == 2)
    assert {line.split()[1] for line in notes() if line.startswith("start")} == {"cpu", "mps"}


@pytest.mark.parametrize(
    "event",
    [
        BatchEnqueuedEvent(queue_id="default", batch_id="b", enqueued=1, requested=1, priority=0),
        QueueItemsRetriedEvent(
            queue_id="default", retried_item_ids=[1], user_ids=["system"], retried_item_ids_by_user={"system": [1]}
        ),
        ProcessorResumedEvent(),
    ],
)
async def test_workers_wake_when_items_may_be_pending(
    event: Event, settings: Settings, notes: Callable[[], list[str]]
) -> None:
    async with running_supervisor(settings) as (supervisor, bus, _orphans):
        await supervisor.ready(30)
        bus.emit(event)
        await until(lambda: "wake cpu" in notes())


async def test_relays_a_worker_event_without_change(settings: Settings) -> None:
    emissions: list[tuple[str, dict[str, object]]] = []

    def listen(kind: type[Event], payload: dict[str, object]) -> None:
        emissions.append((kind.name, payload))

    async with running_supervisor(settings) as (supervisor, bus, _orphans):
        bus.subscribe(listen)
        await supervisor.ready(30)
        data = {"timestamp": 1, "anything": [1, None]}
        await supervisor.ask_all("say", {"name": "invocation_started", "data": data})
        assert emissions == [("invocation_started", data)]


async def test_an_unknown_event_is_dropped(settings: Settings) -> None:
    async with running_supervisor(settings) as (supervisor, _bus, _orphans):
        await supervisor.ready(30)
        await supervisor.ask_all("say", {"name": "no such event", "data": {}})
        assert await supervisor.ask_all("x")


def cleared(queue_id: str = "default", user_id: str | None = None, last_item_id: int = 5) -> ItemsClearedEvent:
    return ItemsClearedEvent(queue_id=queue_id, user_id=user_id, last_item_id=last_item_id)


async def test_cancel_hints(settings: Settings, notes: Callable[[], list[str]]) -> None:
    async with running_supervisor(settings) as (supervisor, bus, _orphans):
        await supervisor.ready(30)
        say = {"name": "queue_item_status_changed"}
        await supervisor.ask_all("say", {**say, "data": STATUS_CHANGED})
        bus.emit(cleared("another"))
        bus.emit(cleared(user_id="another"))
        await until(lambda: notes().count("wake cpu") == 2)
        assert notes().count("cancel cpu 5") == 0
        bus.emit(cleared(user_id="system"))
        bus.emit(cleared())
        await until(lambda: notes().count("wake cpu") == 4)
        assert notes().count("cancel cpu 5") == 2
        await supervisor.ask_all("say", {**say, "data": {**STATUS_CHANGED, "status": "completed"}})
        bus.emit(cleared())
        await until(lambda: notes().count("wake cpu") == 5)
        assert notes().count("cancel cpu 5") == 2


async def test_hints_reach_the_workers_of_another_server(settings: Settings, notes: Callable[[], list[str]]) -> None:
    without_workers = settings.model_copy(update={"generation_devices": []})
    async with (
        running_supervisor(without_workers) as (first, first_bus, _),
        running_supervisor(settings) as (second, second_bus, _),
    ):
        shared: list[str] = []

        def share(hint: dict[str, object]) -> None:
            shared.append(str(hint["kind"]))
            second.hints.apply(json.loads(json.dumps(hint)))

        first.hints.share = share
        await second.ready(30)
        await second.ask_all("say", {"name": "queue_item_status_changed", "data": STATUS_CHANGED})
        canceled = {**STATUS_CHANGED, "status": "canceled"}
        second_bus.publish(QueueItemStatusChangedEvent, canceled, is_local=False)  # its server sends a hint
        first_bus.emit(cleared(user_id="another"))
        await until(lambda: notes().count("wake cpu") == 1)
        assert "cancel cpu 5" not in notes()
        first_bus.publish(QueueItemStatusChangedEvent, canceled)
        first_bus.emit(cleared(user_id="system"))
        first_bus.emit(ImagesDeletedEvent(image_names=["a.png"]))
        first_bus.emit(ModelsChangedEvent(keys=["k"]))
        await until(lambda: "models_changed k" in notes())
        assert notes().count("cancel cpu 5") == 2
        assert "images_deleted a.png" in notes()
        first.relay(second.workers[0], "queue_item_status_changed", {**STATUS_CHANGED, "status": "completed"})
        assert shared == ["clear", "wake", "cancel", "clear", "wake", "images_deleted", "models_changed"]


async def test_late_hints_stop_no_newer_item(settings: Settings, notes: Callable[[], list[str]]) -> None:
    """Hints of other servers may arrive late, twice, or in another order."""
    async with running_supervisor(settings) as (supervisor, _bus, _orphans):
        await supervisor.ready(30)
        (worker,) = supervisor.workers
        say = {"name": "queue_item_status_changed", "data": STATUS_CHANGED}
        late = [
            {"kind": "clear", "queue_id": "default", "user_id": None, "last_item_id": 4},
            {"kind": "cancel", "item_id": 4, "has_begun": True},
            {"kind": "images_deleted", "names": ["a.png"]},
            {"kind": "models_changed", "keys": ["k"]},
            {"kind": "wake"},
        ]
        for hint in [*late, *late]:
            supervisor.hints.apply(hint)
        await supervisor.ask_all("say", say)
        assert (worker.item_id, worker.deadline.item_id) == (5, None), "the deadline was that of an earlier item"
        for hint in [*late, *reversed(late)]:
            supervisor.hints.apply(hint)
        await until(lambda: notes().count("wake cpu") == 4)
        assert worker.deadline.item_id is None
        assert notes().count("cancel cpu 5") == 0
        supervisor.hints.apply({**late[0], "last_item_id": 5})
        await until(lambda: notes().count("cancel cpu 5") == 1)
        assert worker.deadline.item_id == 5


async def test_a_cancel_does_not_end_a_worker_that_starts(settings: Settings) -> None:
    """It runs no item yet, and may take longer to start than an item has to stop."""
    async with running_supervisor(settings, "mute") as (supervisor, _bus, _orphans):
        await until(lambda: supervisor.pids)
        supervisor.hints.apply({"kind": "cancel", "item_id": 4, "has_begun": True})
        assert supervisor.workers[0].deadline.item_id is None


async def test_workers_are_notified_of_deleted_images_and_changed_models(
    settings: Settings, notes: Callable[[], list[str]]
) -> None:
    async with running_supervisor(settings) as (supervisor, bus, _orphans):
        await supervisor.ready(30)
        bus.emit(ImagesDeletedEvent(image_names=["a.png", "b.png"]))
        bus.emit(ModelsChangedEvent(keys=["k"]))
        await until(lambda: "models_changed k" in notes())
        assert "images_deleted a.png,b.png" in notes()


async def test_killed_worker_fails_its_item_and_is_restarted(
    settings: Settings, notes: Callable[[], list[str]], logged: list[logging.LogRecord]
) -> None:
    async with running_supervisor(settings) as (supervisor, _bus, orphans):
        await supervisor.ready(30)
        with pytest.raises(Unavailable, match="SIGKILL"):
            await supervisor.ask_all("die")
        await until(lambda: len([line for line in notes() if line.startswith("start")]) == 2)
        assert orphans.failed == [("cpu", "the worker process for cpu was killed by SIGKILL (possibly out of memory)")]
        while not await supervisor.ask_all("x"):
            await asyncio.sleep(0.01)
    actions = [(vars(record).get("action"), vars(record).get("device")) for record in logged]
    assert [pair for pair in actions if pair[0] in ("start_worker", "restart_worker")] == [
        ("start_worker", "cpu"),
        ("restart_worker", "cpu"),
        ("start_worker", "cpu"),
    ]


async def test_repeated_worker_crashes_are_restarted_with_backoff(settings: Settings) -> None:
    async with running_supervisor(settings, "dies") as (_supervisor, _bus, orphans):
        await until(lambda: len(orphans.failed) == 3)
    assert {reason for _, reason in orphans.failed} == {
        "the worker process for cpu ended unexpectedly with exit status 7"
    }


async def test_workers_that_cannot_run_items_are_reported(settings: Settings) -> None:
    async with running_supervisor(settings) as (supervisor, _bus, orphans):
        supervisor.require_running()  # it is starting
        await supervisor.ready(30)
        supervisor.require_running()
        os.kill(supervisor.pids[0], signal.SIGKILL)
        await until(lambda: orphans.failed and supervisor.workers[0].ready)
        supervisor.require_running()
    async with running_supervisor(settings, "dies") as (supervisor, _bus, _orphans):
        await until(lambda: supervisor.workers[0].failures >= 2 and not supervisor.workers[0].ready)
        with pytest.raises(NoWorkerRunning, match=r"exit status 7\. It is being restarted") as error:
            supervisor.require_running()
        assert error.value.headers == {"Retry-After": "10"}
    settings = settings.model_copy(update={"generation_devices": ["cuda:0", "cuda:1"]})
    async with running_supervisor(settings) as (supervisor, _bus, _orphans):
        await until(lambda: all(worker.ready for worker in supervisor.workers))
        supervisor.workers[0].failures, supervisor.workers[0].ready = 5, False
        supervisor.require_running()  # the other one runs


async def test_unstartable_worker_command_fails_its_items(settings: Settings) -> None:
    orphans = Orphans()
    supervisor = Supervisor(settings, Bus(), orphans.fail, command=("/no/such/program",), first_delay=0.01)
    await supervisor.start()
    await until(lambda: orphans.failed)
    await supervisor.stop()
    assert "cannot be started" in orphans.failed[0][1]


async def test_an_unexpected_error_of_a_start_does_not_stop_restarts(settings: Settings) -> None:
    settings = settings.model_copy(update={"pytorch_cuda_alloc_conf": "\0"})
    async with running_supervisor(settings) as (supervisor, _bus, orphans):
        await until(lambda: len(orphans.failed) == 2)
        assert supervisor.workers[0].failure == "the worker for cpu cannot be run: ValueError: embedded null byte"


async def test_stop_ends_the_worker_cleanly(settings: Settings, notes: Callable[[], list[str]]) -> None:
    async with running_supervisor(settings) as (supervisor, _bus, orphans):
        await supervisor.ready(30)
        pid = supervisor.pids[0]
    assert "stopped cpu" in notes()
    assert not alive(pid)
    assert orphans.failed == []


async def test_running_worker_with_a_closed_link_is_replaced(
    settings: Settings, notes: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_link, "DRAIN_S", 0.01)
    async with running_supervisor(settings, "shut") as (_supervisor, _bus, orphans):
        await until(lambda: len(notes()) >= 2)
        assert orphans.failed[0][0] == "cpu"
    assert not any(alive(int(line.split()[2])) for line in notes())


async def test_malformed_messages_do_not_stop_the_reader(settings: Settings) -> None:
    async with running_supervisor(settings) as (supervisor, _bus, _orphans):
        await supervisor.ready(30)
        nonsense = [
            {"kind": "stopping", "item_id": "x"},
            {"kind": "reply", "id": []},
            {"kind": "heartbeat", "received": "x"},
        ]
        assert await supervisor.ask_all("say", {"messages": nonsense}) == [None]
        assert await supervisor.ask_all("x") == [{"device": "cpu", "name": "x"}]


async def test_unresponsive_worker_is_killed_on_stop(settings: Settings) -> None:
    async with running_supervisor(settings, "deaf", patience=0.1) as (supervisor, _bus, _orphans):
        await supervisor.ready(30)
        pid = supervisor.pids[0]
    assert not alive(pid)


async def test_stop_before_ready_leaves_no_process(settings: Settings, notes: Callable[[], list[str]]) -> None:
    async with running_supervisor(settings, "mute"):
        await until(notes)
    assert not alive(int(notes()[0].split()[2]))


async def test_error_while_failing_orphans_does_not_stop_restarts(
    settings: Settings, notes: Callable[[], list[str]]
) -> None:
    async def broken(_device: str, _reason: str) -> None:
        raise RuntimeError("no database")

    command = (sys.executable, "-S", str(FAKE), "dies")
    supervisor = Supervisor(settings, Bus(), broken, command=command, grace_s=20, first_delay=0.01)
    await supervisor.start()
    await until(lambda: len([line for line in notes() if line.startswith("start")]) > 1)
    await supervisor.stop()


async def test_changed_settings_reach_running_and_new_workers(
    settings: Settings, notes: Callable[[], list[str]]
) -> None:
    async with running_supervisor(settings) as (supervisor, _bus, _orphans):
        assert await supervisor.ready(30)
        supervisor.change_settings(
            settings.model_copy(update={"image_subfolder_strategy": "date", "generation_devices": ["cuda:7"]})
        )
        await until(lambda: "settings date auto" in notes())
        with pytest.raises(Unavailable):
            await supervisor.ask_all("die")
        await until(lambda: notes().count("hello date auto") == 1)


async def test_ask_one_is_answered_by_one_of_several_workers(settings: Settings) -> None:
    settings = settings.model_copy(update={"generation_devices": ["cpu", "cuda:0"]})
    async with running_supervisor(settings) as (supervisor, _bus, _orphans):
        assert await supervisor.ready(30)
        assert (await supervisor.ask_one("cache_status", {}, 30))["name"] == "cache_status"
        with pytest.raises(Unavailable, match="no"):
            await supervisor.ask_one("refuse", {}, 30)
        with pytest.raises(TimeoutError):
            await supervisor.ask_one("silence", {}, 0.1)
        with pytest.raises(Unavailable):
            await supervisor.ask_one("die", {}, 30)


async def test_ask_one_without_a_ready_worker_is_unavailable(settings: Settings) -> None:
    async with running_supervisor(settings, "mute") as (supervisor, _bus, _orphans):
        await until(lambda: supervisor.pids)
        with pytest.raises(Unavailable, match="ready"):
            await supervisor.ask_one("cache_status", {}, 30)
