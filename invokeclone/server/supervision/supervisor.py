"""The worker supervisor: runs one worker process per generation device, restarts it, and exchanges messages with it.

Does not claim or run items: the workers read the queue from the database. Messages to workers only notify them of
changes. Workers of other machines (`server/joined`) are added to the same list while they are joined.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import uuid4

from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import EVENTS, Bus
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.workers import NoWorkerRunning
from invokeclone.server.supervision.hints import EVENTS_WITH_HINTS, Hints
from invokeclone.server.supervision.launch import COMMAND, Backoff, start_process
from invokeclone.server.supervision.link import Message
from invokeclone.server.supervision.requests import WorkerRequests, receive_reply
from invokeclone.server.supervision.workers import Worker, explain_exit

FIRST_DELAY = 0.5
MAX_DELAY = 60.0
SILENCE_LIMIT = 600.0
"""Seconds without a message (heartbeats come every second) after which a worker counts as hung.

Long, because native code of a node pack may hold the GIL and still finish. A user who does not want to wait cancels the
item; `cancel_grace_s` applies then.
"""

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
        self._stopping = asyncio.Event()
        self.hints = Hints(self._workers, settings.cancel_grace_s)
        self._requests = WorkerRequests(self._workers)
        self.packs: list[str] = []
        """Names of the node packs that workers load."""
        self._anyone_ready = asyncio.Event()
        self._instance = uuid4().hex[:8]
        """Distinguishes the workers of this server from those of others, and of its earlier starts."""

    # Lifecycle

    async def start(self) -> None:
        """Start a worker per configured device; with `auto` the first worker reports the available devices."""
        self._bus.subscribe(self.hints.on_event, *EVENTS_WITH_HINTS, only_own=True)
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
        backoff = Backoff(self._first_delay, MAX_DELAY)
        while not self._stopping.is_set():
            started = time.monotonic()
            reason = await self._try_to_serve(worker)
            if self._stopping.is_set():
                return
            expected, worker.killed_for = worker.killed_for is not None, None
            if expected or time.monotonic() - started > MAX_DELAY:
                backoff.reset()
                worker.failures = 0
            delay = 0 if expected else backoff.next()
            _log.error("%s; starting it again in %.1f s", reason, delay, extra=worker.log_fields("restart_worker"))
            worker.restarts += 1
            await self._orphan(worker, reason)
            if not expected:
                worker.failures, worker.failure = worker.failures + 1, reason
                await asyncio.sleep(delay)

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
        try:
            link = await start_process(
                self._command, worker.device, self._settings, lambda message: self.receive(worker, message)
            )
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
                receive_reply(worker, message)
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
            self.hints.watch_cancel(worker)
        self.hints.is_relaying = True
        try:
            self._bus.publish(kind, payload)
        finally:
            self.hints.is_relaying = False

    # To the workers

    def change_settings(self, settings: Settings) -> None:
        """Send new settings to all workers, present and future; the devices stay those of the start."""
        fixed = {name: getattr(self._settings, name) for name in ("device", "generation_devices")}
        self._settings = settings.model_copy(update=fixed)
        self.hints.cancel_grace_s = settings.cancel_grace_s
        self.hints.broadcast({"kind": "settings", "settings": self._settings.to_worker()})

    def change_packs(self, names: list[str]) -> None:
        """Make all workers, present and future, reload exactly these node packs."""
        self.packs = names
        self.hints.broadcast({"kind": "packs", "names": names})

    async def ask_all(self, name: str, body: dict[str, Any] | None = None, seconds: float = 10.0) -> list[Any]:
        """Send a request to all workers and return the replies of those that are ready (see `WorkerRequests`)."""
        return await self._requests.ask_all(name, body, seconds)

    async def ask_one(self, name: str, body: dict[str, Any], seconds: float, *, startup_s: float = 0.0) -> Any:
        """Send a request to one worker of this machine and return its reply; wait up to `startup_s` until one is ready."""
        if startup_s:
            await self.ready(startup_s)
        return await self._requests.ask_one(name, body, seconds)

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
