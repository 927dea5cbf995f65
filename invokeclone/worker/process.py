"""The worker process: setup, message handling and shutdown.

The process stops on a stop message, when the server closes the pipe (it has died), or on SIGTERM. The running node is
asked to stop at its next checkpoint; after `GRACE_S` seconds the process exits anyway. The server then updates the
item's row.
"""

import asyncio
import contextlib
import faulthandler
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from invokeclone.custom_nodes import legacy_names
from invokeclone.custom_nodes import loading as packs
from invokeclone.graph.invocations import registry
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.process import processes
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import open_database
from invokeclone.kit.sql.sqlite_database import SqliteDatabase
from invokeclone.queue import claims
from invokeclone.queue.rows import ClaimedItem
from invokeclone.worker.backend.http import HttpTransport
from invokeclone.worker.backend.joined import JoinedBackend
from invokeclone.worker.cache import InvocationCache
from invokeclone.worker.calls import JoinedServer, RemoteQueue, ServerCalls
from invokeclone.worker.engine import Engine, describe_devices, first_device
from invokeclone.worker.interfaces.context import make_context
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.link import LineReader, LineWriter, Message, ServerLink
from invokeclone.worker.loop import Loop, Outcome
from invokeclone.worker.measurement import Measurement
from invokeclone.worker.recent_images import RecentImages
from invokeclone.worker.requests import Requests
from invokeclone.worker.runner import SessionRunner
from invokeclone.worker.tensors import TensorStore

GRACE_S = 3.0
"""Seconds that a running node has to reach a checkpoint before the process exits."""
TENSOR_BUDGET = 256 * 1024**2
IMAGE_BUDGET = 64 * 1024**2
IDLE_CHECK_S = 30.0

_log = log.get("worker")


class DatabaseQueue:
    """The loop's queue, backed by the database."""

    def __init__(self, resources: Resources, device: str, engine: Engine, worker_id: str | None = None) -> None:
        """Claim items for `device` as `worker_id`, preferring those whose models `engine` has cached."""
        self._resources = resources
        self._claims = claims.WorkerClaims(resources, device, worker_id or device)
        self._engine = engine

    async def claim(self) -> ClaimedItem | None:
        """Claim the next item."""
        return await self._claims.claim(self._engine.resident())

    async def finish(self, item: ClaimedItem, outcome: Outcome) -> bool:
        """Store session and status; return whether the item was still held by this claim."""
        finished = await claims.finish(
            self._resources,
            item.item_id,
            outcome.status,
            session_json=outcome.session_json,
            error=outcome.error,
            fence=item.fence,
        )
        return finished is not None

    async def is_running(self, item: ClaimedItem) -> bool:
        """Return whether the item's row is in progress, by this claim."""
        return await claims.is_running(self._resources, item.item_id, item.fence)


class Process:
    """A worker process, from the hello message to its end."""

    def __init__(
        self,
        settings: Settings,
        device: str,
        reader: LineReader,
        writer: LineWriter,
        worker_id: str | None = None,
        server: JoinedServer | None = None,
    ) -> None:
        """Serve `device` under `settings`, connected by `reader` and `writer`. Create it on the running event loop.

        A worker that has joined a `server` of another machine has no access to the database.
        """
        self._device = device
        self._reader = reader
        self._writer = writer
        self._events = asyncio.get_running_loop()
        self._link = ServerLink(writer)
        self._calls = ServerCalls(self._link.call) if server is not None else None
        self._database = SqliteDatabase(None) if server is not None else open_database(settings)
        resources = Resources(settings, self._database, self._link)
        folder = own_folder(settings.outputs_path / "tensors", device)
        self._joined = (
            JoinedBackend(self._calls.call, HttpTransport(*server), settings, folder / "images")
            if server is not None and self._calls is not None
            else None
        )
        self._tools = Tools(
            resources=resources,
            loop=self._events,
            device=device,
            channel=self._link,
            cache=InvocationCache(settings.node_cache_size),
            tensors=TensorStore(folder, TENSOR_BUDGET),
            images=RecentImages(IMAGE_BUDGET),
            engine=Engine(settings, device),
            remote=self._joined.backend if self._joined else None,
        )
        self._requests = Requests(self._tools)
        engine = self._tools.engine
        queue = (
            RemoteQueue(self._calls, engine.resident)
            if self._calls is not None
            else DatabaseQueue(resources, device, engine, worker_id)
        )
        measurement = Measurement(device, self._tools.cache, self._tools.engine)
        if settings.metrics:
            self._link.measure = measurement.measure
        runner = SessionRunner(self._tools, make_context, self._link.stopping, measurement.add)
        self._loop = Loop(queue, runner, self._link)
        failure = "cannot drop idle models"
        self._expiry = PeriodicTask(
            "expire_models", self._expire_models, IDLE_CHECK_S, failure=failure, logger=_log, at_once=False
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._reason: str | None = None

    async def run(self) -> None:
        """Run items until a reason to stop occurs."""
        self._events.add_signal_handler(signal.SIGTERM, self._end, "SIGTERM")
        self._reader.start(self._on_message, self._on_link_closed)
        self._tools.engine.warm_up(self._report_devices)
        self._expiry.start()
        self._link.ready(self._device, [{"device": "cpu", "name": "CPU"}] if self._device == "cpu" else None)
        await self._loop.run()
        if self._reason is None:
            _exit_after(GRACE_S)
        self._link.report_stop(self._reason or "the last item has ended")
        self._tools.tensors.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._database.close(), GRACE_S)
            if self._joined is not None:
                await asyncio.wait_for(self._joined.close(), GRACE_S)
        self._writer.close(GRACE_S)

    def _report_devices(self) -> None:
        """Report ready again with all available devices; called in the warm-up thread."""
        with contextlib.suppress(ImportError, RuntimeError):
            self._link.ready(self._device, describe_devices())

    async def _expire_models(self) -> None:
        """Drop models after the configured idle time; in a thread, as a model load may hold the cache's lock."""
        if self._tools.engine.may_expire and self._loop.item_id is None:
            await in_thread(self._tools.engine.expire)

    def _on_message(self, message: Message) -> None:
        """Pass a message from the reader thread to the event loop."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._events.call_soon_threadsafe(self._handle, message)

    def _on_link_closed(self) -> None:
        """Stop because the server closed the link. The exit timer starts here, as the event loop may be blocked."""
        _exit_after(GRACE_S)
        with contextlib.suppress(RuntimeError):
            self._events.call_soon_threadsafe(self._end, "the server closed the link")

    def _end(self, reason: str) -> None:
        if self._reason is None:
            self._reason = reason
            _log.info("worker %s stops: %s", self._device, reason, extra={"action": "end_worker"})
            _exit_after(GRACE_S)
            self._loop.stop()
            if self._calls is not None:
                self._calls.stop_claiming()

    def _drain(self) -> None:
        """End after the running item. An idle worker ends now, also if the server does not answer its claim."""
        self._loop.drain()
        if self._calls is not None:
            self._calls.stop_claiming()

    def _handle(self, message: Message) -> None:
        if message.get("kind") == "result" and self._calls is not None:
            self._calls.resolve(message)
            return
        self._link.received += 1
        match message:
            case {"kind": "wake"}:
                self._loop.wake()
            case {"kind": "cancel", "item_id": int(item_id)}:
                self._loop.cancel(item_id)
            case {"kind": "images_deleted", "names": list(names)}:
                self._tools.cache.forget(names)
                self._tools.images.forget(names)
            case {"kind": "models_changed", "keys": list(keys)}:
                self._start(in_thread(self._tools.engine.drop, keys))
            case {"kind": "settings", "settings": dict(settings)}:
                self._tools.resources.settings = Settings(**settings)
            case {"kind": "packs", "names": list(names)}:
                self._loop.between_items(lambda: self._replace_packs(names))
            case {"kind": "request", "id": int(request_id), "name": str(name)}:
                self._start(self._answer(request_id, name, message.get("body") or {}))
            case {"kind": "stop" | "drain" as kind}:
                self._drain() if kind == "drain" else self._end("the server requested it")
            case _:
                _log.warning("unknown message from the server: %s", message)

    def _replace_packs(self, names: list[str]) -> None:
        """Reload these node packs and clear the cache, whose outputs are of the old classes."""
        self._tools.engine.wait_until_imported()  # packs may import torch
        self._tools.cache.clear()
        packs.replace(self._tools.resources.settings.custom_nodes_path, names)

    def _start(self, work: Any) -> None:
        task = self._events.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request_id: int, name: str, body: dict[str, Any]) -> None:
        try:
            answer = await self._requests.answer(name, body)
        except Exception as error:  # noqa: BLE001  (a failing request must not end the process)
            _log.exception("request %s failed", name, extra={"action": "answer_request"})
            self._link.reply(request_id, error=str(error))
        else:
            self._link.reply(request_id, answer)


def _exit_after(seconds: float) -> None:
    """Exit in `seconds` regardless of running Python code, and log the tracebacks of all threads.

    The timer of faulthandler does not need the GIL. A later call restarts it.
    """
    faulthandler.dump_traceback_later(seconds, exit=True)


def own_folder(parent: Path, device: str) -> Path:
    """Return the path of a folder for this process (not created yet), and remove the folders of ended workers."""
    prefix = f"worker-{device.replace(':', '-')}-"
    for other in parent.glob(f"{prefix}*"):
        pid = other.name.removeprefix(prefix)
        if pid.isdecimal() and not processes.is_running(pid):  # otherwise it is of another device, such as cuda-1
            shutil.rmtree(other, ignore_errors=True)
    return parent / f"{prefix}{os.getpid()}"


def serve(device_setting: str, incoming: int, outgoing: int) -> None:
    """Read the hello from `incoming` and run as the worker for `device_setting` (a device or `auto`)."""
    reader, writer = LineReader(incoming), LineWriter(outgoing)
    hello = reader.first()
    if hello is None:
        return
    settings = Settings(**hello["settings"])
    log.set_up(
        settings.log_level,
        settings.log_format,
        settings.log_handlers,
        network_level=settings.log_level_network,
        as_json=settings.log_json,
    )
    registry.discover()
    legacy_names.use(settings)
    packs.replace(settings.custom_nodes_path, hello.get("packs") or [])
    registry.restrict(settings.allow_nodes, settings.deny_nodes)
    device = first_device(device_setting)
    log.set_process_fields(device=device)

    async def run() -> None:
        worker_id, join = hello.get("worker_id"), hello.get("join")
        server = JoinedServer(join["url"], join["token"], worker_id or device) if join else None
        await Process(settings, device, reader, writer, worker_id, server).run()

    asyncio.run(run())
