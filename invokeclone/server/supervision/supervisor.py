"""The worker supervisor: runs one worker process per generation device, restarts it, and exchanges messages with it.

Does not claim or run items: the workers read the queue from the database. Messages to workers only notify them of
changes. Workers of other machines (`server/joined`) are added to the same list while they are joined.
"""

import asyncio
import collections
import contextlib
import itertools
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import uuid4

from invokeclone.images.events import ImagesDeletedEvent
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import Unavailable
from invokeclone.kit.events import EVENTS, Bus, Event
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.workers import NoWorkerRunning
from invokeclone.models.records.events import ModelsChangedEvent
from invokeclone.queue.events import (
    BatchEnqueuedEvent,
    ProcessorResumedEvent,
    QueueClearedEvent,
    QueueItemsRetriedEvent,
    QueueItemStatusChangedEvent,
)
from invokeclone.server.supervision.link import Message, WorkerLink
from invokeclone.server.supervision.workers import Worker, explain_exit

COMMAND = (sys.executable, "-m", "invokeclone.worker")
TERMINAL = frozenset({"completed", "failed", "canceled"})
FIRST_DELAY = 0.5
MAX_DELAY = 60.0
SILENCE_LIMIT = 600.0
"""Seconds without a message (heartbeats come every second) after which a worker counts as hung.

Long, because native code of a node pack may hold the GIL and still finish. A user who does not want to wait cancels the
item; `cancel_grace_s` applies then.
"""
REMEMBERED_CANCELS = 1000
HINTS = (
    BatchEnqueuedEvent, QueueItemsRetriedEvent, ProcessorResumedEvent, QueueItemStatusChangedEvent, QueueClearedEvent,
    ImagesDeletedEvent, ModelsChangedEvent,
)  # fmt: skip
"""Events that are forwarded to workers."""

FailOrphans = Callable[[str, str], Awaitable[Any]]
"""Called with the id of a worker that has died and a reason: fails the items that it was running."""

_log = log.get("server.supervisor")


class Supervisor:
    """The workers of one server. Call all methods on the event loop."""

    def __init__(
        self,
        settings: Settings,
        bus: Bus,
        fail_orphans: FailOrphans,
        *,
        command: Sequence[str] = COMMAND,
        grace_s: float = 5.0,
        first_delay: float = FIRST_DELAY,
    ) -> None:
        """Create without starting workers; `grace_s` is the number of seconds before each escalation of a stop."""
        self._settings = settings
        self._bus = bus
        self._fail_orphans = fail_orphans
        self._command = tuple(command)
        self._grace_s = grace_s
        self._first_delay = first_delay
        self._workers: list[Worker] = []
        self._devices: list[dict[str, str]] = []
        self.hardware: list[dict[str, str]] = []
        """The devices reported by the OS, used until a worker reports the ones it found."""
        self._tasks: set[asyncio.Task[None]] = set()
        failure = "cannot check the workers for silence"
        self._watch = PeriodicTask(
            "watch_workers", self._replace_silent, SILENCE_LIMIT / 10, failure=failure, logger=_log, at_once=False
        )
        self._numbers = itertools.count(1)
        self._stopping = asyncio.Event()
        self._relaying = False
        self._canceled: collections.deque[int] = collections.deque(maxlen=REMEMBERED_CANCELS)
        self.share_hint: Callable[[Message], None] = lambda _hint: None
        """Called with each hint for workers, which are also those of other servers on the same database."""
        self.packs: list[str] = []
        """Names of the node packs that workers load."""
        self._anyone_ready = asyncio.Event()
        self._instance = uuid4().hex[:8]
        """Distinguishes the workers of this server from those of others, and of its earlier starts."""

    # Lifecycle

    async def start(self) -> None:
        """Start a worker per configured device; with `auto` the first worker reports the available devices."""
        self._bus.subscribe(self._on_event, *HINTS, only_own=True)
        self._watch.start()
        for device in _devices(self._settings):
            self._add(device)

    async def stop(self) -> None:
        """Stop all workers, escalating to SIGKILL; none is left when this returns."""
        self._stopping.set()
        await self._watch.stop()
        links = [worker.link for worker in self._workers if worker.link is not None]
        await asyncio.gather(*(link.end(self._grace_s) for link in links))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _add(self, device: str) -> None:
        worker = Worker(device)
        self._workers.append(worker)
        self._task(self._run_worker(worker), f"worker {device}")

    def _task(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_worker(self, worker: Worker) -> None:
        """Run processes for the device until the server stops: start, wait for exit, fail orphaned items, restart."""
        delay = self._first_delay
        while not self._stopping.is_set():
            started = time.monotonic()
            reason = await self._try_to_serve(worker)
            if self._stopping.is_set():
                return
            expected, worker.killed_for = worker.killed_for is not None, None
            wait = 0 if expected else delay
            _log.error("%s; starting it again in %.1f s", reason, wait, extra=worker.log_fields("restart_worker"))
            worker.restarts += 1
            await self._orphan(worker, reason)
            if expected:
                worker.failures = 0
                continue
            if time.monotonic() - started > MAX_DELAY:
                delay, worker.failures = self._first_delay, 0
            worker.failures, worker.failure = worker.failures + 1, reason
            await asyncio.sleep(delay)
            delay = min(delay * 2, MAX_DELAY)

    async def _try_to_serve(self, worker: Worker) -> str:
        try:
            return await self._serve(worker)
        except Exception as error:  # noqa: BLE001  (the device must get a worker again whatever happens)
            reason = f"the worker for {worker.device} cannot be run: {type(error).__name__}: {error}"
            _log.exception("%s", reason, extra=worker.log_fields("start_worker"))
            worker.mark_lost(reason)
            return reason

    async def _serve(self, worker: Worker) -> str:
        """Run one process for the device until it ends; return the reason."""
        environment = {}
        if self._settings.pytorch_cuda_alloc_conf:
            environment["PYTORCH_CUDA_ALLOC_CONF"] = self._settings.pytorch_cuda_alloc_conf
        command = (*self._command, "--device", worker.device)
        try:
            link = await WorkerLink.start(command, lambda message: self.receive(worker, message), environment)
        except OSError as error:
            return f"the worker for {worker.device} cannot be started: {error}"
        worker.worker_id = f"server:{self._instance}:{worker.device}:{link.pid}"
        hello = {"kind": "hello", "settings": self._settings.to_worker(), "packs": self.packs}
        link.send({**hello, "worker_id": worker.worker_id})
        worker.link, worker.last_message_at, worker.messages_sent = link, time.monotonic(), 0
        try:
            status = await link.wait()
            reason = worker.killed_for or explain_exit(worker.device, status)
        finally:
            link.kill()
        worker.mark_lost(reason)
        return reason

    async def _orphan(self, worker: Worker, reason: str) -> None:
        try:
            await self._fail_orphans(worker.worker_id, reason)
        except Exception:  # noqa: BLE001  (the worker must be restarted even if the database fails)
            extra = worker.log_fields("fail_orphans")
            _log.exception("could not fail the items that the worker for %s was running", worker.device, extra=extra)

    async def _replace_silent(self) -> None:
        """Kill workers without a message for SILENCE_LIMIT seconds: their event loop is blocked."""
        for worker in self._workers:
            if worker.link is not None and time.monotonic() - worker.last_message_at > SILENCE_LIMIT:
                worker.kill(f"the worker for {worker.device} is replaced: it sent no message for {SILENCE_LIMIT:.0f} s")

    # Workers of other machines

    @property
    def settings(self) -> Settings:
        """The settings of the workers."""
        return self._settings

    def add_joined(self, worker: Worker) -> None:
        """Add a worker that has joined; it is supervised on its own machine."""
        self._workers.append(worker)

    def remove_joined(self, worker: Worker, reason: str) -> None:
        """Remove a worker that is gone."""
        worker.mark_lost(reason)
        if worker in self._workers:
            self._workers.remove(worker)

    def watch_cancel(self, worker: Worker) -> None:
        """Replace the worker unless its item stops in time, if the item was canceled before it was known to run."""
        if worker.item_id is not None and worker.item_id in self._canceled:
            worker.expect_end(worker.item_id, self._settings.cancel_grace_s)

    # From the workers

    def receive(self, worker: Worker, message: Message) -> None:
        """Handle a message of a worker."""
        worker.last_message_at = time.monotonic()
        match message.get("kind"):
            case "ready":
                self._on_ready(worker, message)
            case "event":
                self.relay(worker, str(message.get("name")), message.get("data") or {})
            case "reply":
                self._answer(worker, message)
            case "heartbeat":
                worker.on_heartbeat(message)
            case "stopping":
                worker.deadline.stopping(int(message.get("item_id") or 0), self._settings.cancel_grace_s)
            case "stopped":
                _log.log(
                    logging.DEBUG if self._stopping.is_set() else logging.WARNING,
                    "the worker for %s stops: %s",
                    worker.device,
                    message.get("reason"),
                    extra=worker.log_fields("end_worker"),
                )
            case other:
                extra = worker.log_fields("read_message")
                _log.warning("the worker for %s sent an unknown message %r", worker.device, other, extra=extra)

    def _on_ready(self, worker: Worker, message: Message) -> None:
        """Record the worker's device. With `auto`, start workers for the other devices of its kind that it reports."""
        device = str(message.get("device") or worker.device)
        worker.device = device if worker.name is None else f"{worker.name}/{device}"
        if not worker.ready:
            pid, extra = worker.link and worker.link.pid, worker.log_fields("start_worker")
            _log.info("the worker for %s is ready (process %s)", worker.device, pid, extra=extra)
        worker.ready = True
        self._anyone_ready.set()
        if worker.name is not None:
            return
        devices = [device for device in message.get("devices") or [] if isinstance(device, dict) and "device" in device]
        if devices:
            self._devices = devices
        if _devices(self._settings) == ["auto"]:
            for name in (str(device["device"]) for device in devices):
                same_kind = name.split(":")[0] == worker.device.split(":")[0]
                if same_kind and name not in [existing.device for existing in self._workers]:
                    self._add(name)

    def relay(self, worker: Worker, name: str, payload: dict[str, Any]) -> None:
        """Publish an event of a worker, and follow which item it runs."""
        kind = EVENTS.get(name)
        if kind is None:
            extra = worker.log_fields("read_message")
            _log.warning("the worker for %s sent an unknown event %r", worker.device, name, extra=extra)
            return
        if name == "queue_item_status_changed":
            running = payload.get("status") == "in_progress"
            worker.item_id = payload.get("item_id") if running else None
            worker.queue_id = payload.get("queue_id") if running else None
            worker.user_id = payload.get("user_id") if running else None
            if running or worker.deadline.item_id == payload.get("item_id"):
                worker.deadline.running(worker.item_id)
            self.watch_cancel(worker)
        self._relaying = True
        try:
            self._bus.publish(kind, payload)
        finally:
            self._relaying = False

    def _answer(self, worker: Worker, message: Message) -> None:
        future = worker.pending_requests.pop(int(message.get("id") or 0), None)
        if future is None or future.done():
            return
        if message.get("error") is not None:
            future.set_exception(Unavailable(str(message["error"])))
        else:
            future.set_result(message.get("body"))

    # To the workers

    def _on_event(self, kind: type[Event], payload: dict[str, Any]) -> None:
        """Notify the workers of an event, those of other servers too."""
        match kind.name:
            case "batch_enqueued" | "queue_items_retried" | "processor_resumed":
                self.wake()
            case "queue_item_status_changed" if not self._relaying and payload.get("status") in TERMINAL:
                has_begun = payload.get("started_at") is not None
                self._hint({"kind": "cancel", "item_id": payload["item_id"], "has_begun": has_begun})
            case "queue_cleared":
                self._hint({"kind": "clear", "queue_id": payload.get("queue_id"), "user_id": payload.get("user_id")})
                self.wake()
            case "images_deleted":
                self._hint({"kind": "images_deleted", "names": payload.get("image_names", [])})
            case "models_changed":
                self._hint({"kind": "models_changed", "keys": payload.get("keys", [])})

    def _hint(self, hint: Message) -> None:
        self.apply_hint(hint)
        self.share_hint(hint)

    def apply_hint(self, hint: Message) -> None:
        """Pass a hint, of this server or another, to the workers of this server."""
        match hint:
            case {"kind": "cancel", "item_id": int(item_id), "has_begun": bool(has_begun)}:
                self._cancel(item_id, has_begun=has_begun)
            case {"kind": "clear", "queue_id": queue_id, "user_id": user_id}:
                self._clear(queue_id, user_id)
            case {"kind": "wake" | "images_deleted" | "models_changed"}:
                self._broadcast(hint)

    def _clear(self, queue_id: str, user_id: str | None) -> None:
        """Stop the items of a cleared queue, or only those of one user."""
        for worker in self._workers:
            if worker.item_id is None or worker.queue_id != queue_id or user_id not in (None, worker.user_id):
                continue
            worker.send({"kind": "cancel", "item_id": worker.item_id})
            worker.expect_end(worker.item_id, self._settings.cancel_grace_s)

    def _cancel(self, item_id: int, *, has_begun: bool) -> None:
        """Stop a canceled item, whose row is updated already, in the worker that runs it or is about to.

        A worker whose GIL is held cannot report its item, so any seemingly idle worker may be running one that has
        started.
        """
        self._canceled.append(item_id)
        self._broadcast({"kind": "cancel", "item_id": item_id})
        for worker in self._workers:
            if worker.item_id == item_id or (worker.item_id is None and has_begun):
                worker.expect_end(item_id, self._settings.cancel_grace_s)

    def change_settings(self, settings: Settings) -> None:
        """Send new settings to all workers, present and future; the devices stay those of the start."""
        fixed = {name: getattr(self._settings, name) for name in ("device", "generation_devices")}
        self._settings = settings.model_copy(update=fixed)
        self._broadcast({"kind": "settings", "settings": self._settings.to_worker()})

    def change_packs(self, names: list[str]) -> None:
        """Make all workers, present and future, reload exactly these node packs."""
        self.packs = names
        self._broadcast({"kind": "packs", "names": names})

    def wake(self) -> None:
        """Notify all workers to check the queue."""
        self._hint({"kind": "wake"})

    def _broadcast(self, message: Message) -> None:
        for worker in self._workers:
            worker.send(message)

    async def ask_all(self, name: str, body: dict[str, Any] | None = None, seconds: float = 10.0) -> list[Any]:
        """Send a request to all workers and return the replies of those that are ready, in the order of devices.

        A worker that is still loading handles the request later and is not waited for. One that fails or takes longer
        than `seconds` is left out; raises Unavailable if no ready worker replied.
        """
        asks = [answer for worker in self._workers if (answer := self._ask(worker, name, body)) is not None]
        answers = await asyncio.gather(*(asyncio.wait_for(ask, seconds) for ask in asks), return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for failure in failures:
            reason = str(failure) or type(failure).__name__
            _log.warning("a worker could not handle the request %s: %s", name, reason, extra={"action": "ask_worker"})
        if failures and len(failures) == len(answers):
            raise Unavailable(
                f"no worker could handle the request {name}: {str(failures[0]) or type(failures[0]).__name__}"
            )
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def ask_one(self, name: str, body: dict[str, Any], seconds: float, *, startup_s: float = 0.0) -> Any:
        """Send a request to one worker of this machine, an idle one if possible, and return its reply.

        Waits up to `startup_s` seconds for a worker to be ready. Raises Unavailable if none is, or if the worker ends
        or fails, and TimeoutError after `seconds` without a reply.
        """
        if startup_s:
            await self.ready(startup_s)
        ready = [worker for worker in self._workers if worker.ready and worker.name is None]
        answer = self._ask(min(ready, key=lambda worker: worker.item_id is not None), name, body) if ready else None
        if answer is None:
            raise Unavailable(f"no worker is ready for the request {name}; try again in a moment")
        return await asyncio.wait_for(answer, seconds)

    def _ask(self, worker: Worker, name: str, body: dict[str, Any] | None) -> asyncio.Future[Any] | None:
        number = next(self._numbers)
        worker.send({"kind": "request", "id": number, "name": name, "body": body or {}})
        if not worker.ready:
            return None
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        worker.pending_requests[number] = future
        future.add_done_callback(lambda _future: worker.pending_requests.pop(number, None))
        return future

    def require_running(self) -> None:
        """Raise NoWorkerRunning if every worker has ended, or ends again and again before it is ready."""
        if self._workers and not any(worker.is_running for worker in self._workers):
            reasons = "; ".join(dict.fromkeys(worker.failure for worker in self._workers))
            raise NoWorkerRunning(f"no worker is running: {reasons}. It is being restarted; try again later")

    # State

    @property
    def workers(self) -> Sequence[Worker]:
        """The workers, by device."""
        return tuple(self._workers)

    @property
    def live_worker_ids(self) -> list[str]:
        """The ids of the workers whose processes are running."""
        return [worker.worker_id for worker in self._workers if worker.link is not None]

    @property
    def local_worker_ids(self) -> list[str]:
        """The ids of the workers that are processes of this server."""
        return [worker.worker_id for worker in self._workers if worker.link is not None and worker.name is None]

    @property
    def pids(self) -> list[int]:
        """The process ids of the running workers."""
        return [worker.link.pid for worker in self._workers if worker.link is not None]

    def devices(self) -> list[dict[str, str]]:
        """Return the devices of this machine, as `{device, name}`: a worker's list, or until then that of the OS."""
        if self._devices:
            return self._devices
        hardware_devices = {device["device"] for device in self.hardware}
        local = (worker.device for worker in self._workers if worker.name is None)
        names = [name for name in local if name not in {"auto", *hardware_devices}]
        return [*self.hardware, *({"device": name, "name": name.upper()} for name in names)]

    async def ready(self, seconds: float) -> bool:
        """Wait up to `seconds` for a worker to be ready; return whether one is."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._anyone_ready.wait(), seconds)
        return any(worker.ready for worker in self._workers)


def _devices(settings: Settings) -> list[str]:
    """Return the devices to start workers for; `auto` stands for those that the first worker finds."""
    if isinstance(settings.generation_devices, list):
        return settings.generation_devices
    return [settings.device]
