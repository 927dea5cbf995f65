"""The main loop of a worker: claim an item, run it in the node thread, store the result.

Does not depend on SQL (see `Queue`) or nodes (see `Runner`). Catches all exceptions: an item that causes an internal
error fails, and the loop continues. It claims the next item only when the database has the end of the last one.
"""

import asyncio
import collections
import contextlib
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection

from invokeclone.kit import log
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.process.repeated_errors import RepeatedErrors
from invokeclone.queue.claims import ItemError
from invokeclone.queue.rows import ClaimedItem
from invokeclone.worker.missing import advice

POLL_S = 1.0
"""Seconds that an idle worker waits for a notification before it polls the queue."""
HEARTBEAT_S = 1.0
PAUSE_AFTER_ERROR_S = 1.0
RETRY_S = (0.05, 0.2, 1.0, 5.0)
"""Delays between attempts to write to a locked, full or failing database; the last one repeats."""
REMEMBERED_CANCELS = 1000
TRANSIENT_ERRORS = (OperationalError, NoConnection, OSError)
"""Database errors that may be temporary: locked, disk full, I/O."""

_log = log.get("worker.loop")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended. `announce` sends the events that must follow the stored status.

    A session that is `waiting` for a called workflow has not ended, and another worker may continue it.
    """

    status: Literal["completed", "failed", "canceled", "waiting"]
    session_json: str | None
    """The session's JSON after the graph, which a run does not change."""
    error: ItemError | None = None
    announce: Callable[[], None] | None = None
    broken: bool = False


class Queue(Protocol):
    """The queue operations that the loop needs."""

    async def claim(self) -> ClaimedItem | None:
        """Claim the next item, if there is one and the processor is not paused."""
        ...

    async def finish(self, item: ClaimedItem, outcome: Outcome) -> bool:
        """Store session and status; return False if the item was terminal already and is left unchanged."""
        ...

    async def is_running(self, item: ClaimedItem) -> bool:
        """Return whether the item's row is still in progress."""
        ...


class Runner(Protocol):
    """Runs the sessions of items."""

    def run(self, item: ClaimedItem, canceled: threading.Event) -> Outcome:
        """Run `item` to its end in the calling thread; raises only on internal errors."""
        ...

    def interrupt(self) -> None:
        """Make the running node of a canceled item check for cancellation more often."""
        ...


class HeartbeatSink(Protocol):
    """Receiver of the loop's heartbeats."""

    def heartbeat(self, item_id: int | None) -> None:
        """Report that the loop is responsive, and the running item."""
        ...


@dataclass(frozen=True, slots=True)
class _Current:
    item: ClaimedItem
    canceled: threading.Event


class Loop:
    """A worker's loop. Call `wake`, `cancel`, `drain` and `stop` on its event loop."""

    def __init__(self, queue: Queue, runner: Runner, heartbeat_sink: HeartbeatSink) -> None:
        """Claim items from `queue` and run them with `runner`."""
        self._queue = queue
        self._runner = runner
        self._heartbeat_sink = heartbeat_sink
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._draining = False
        self._current: _Current | None = None
        self._canceled: collections.deque[int] = collections.deque(maxlen=REMEMBERED_CANCELS)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="node")

    @property
    def item_id(self) -> int | None:
        """Id of the running item."""
        return self._current.item.item_id if self._current else None

    def wake(self) -> None:
        """Check the queue at once."""
        self._wake.set()

    def cancel(self, item_id: int) -> None:
        """Stop running `item_id`, whose row is canceled already, at its next checkpoint.

        A cancel may arrive before the claim returns, so the latest ones are remembered (ids are never reused).
        """
        self._canceled.append(item_id)
        if self._current and self._current.item.item_id == item_id:
            self._interrupt(self._current)

    def between_items(self, work: Callable[[], None]) -> None:
        """Run `work` in the node thread between the current item and the next one."""
        self._thread.submit(work)

    def stop(self) -> None:
        """Claim no more items; the running one stops at its next checkpoint, and the server updates its row."""
        self._stopping.set()
        self._wake.set()
        if self._current:
            self._interrupt(self._current)

    def drain(self) -> None:
        """Claim no more items, and end after the running one."""
        self._draining = True
        self._wake.set()

    def _interrupt(self, current: _Current) -> None:
        current.canceled.set()
        self._runner.interrupt()

    async def run(self) -> None:
        """Run until stopped or drained."""
        heartbeats = PeriodicTask(
            "send_heartbeats", self._send_heartbeat, HEARTBEAT_S, failure="cannot check the running item", logger=_log
        )
        heartbeats.start()
        try:
            while not (self._stopping.is_set() or self._draining):
                try:
                    await self._run_next()
                except Exception:  # noqa: BLE001  (the loop must survive all errors)
                    _log.exception("unexpected error in the worker's loop")
                    await self._pause(PAUSE_AFTER_ERROR_S)
        finally:
            await heartbeats.stop()
            self._thread.shutdown(wait=False)

    async def _run_next(self) -> None:
        self._wake.clear()
        item = await self._queue.claim()
        if item is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_S)
            return
        with log.fields(action="run_item", **item.log_fields):
            outcome = await self._run(item)
        if outcome.status == "waiting" or (self._stopping.is_set() and outcome.status == "canceled"):
            return
        with log.fields(action="finish_item", **item.log_fields):
            await self._settle(item, outcome)

    async def _run(self, item: ClaimedItem) -> Outcome:
        current = _Current(item, threading.Event())
        if item.item_id in self._canceled or self._stopping.is_set():
            return Outcome("canceled", None)
        self._current = current
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, self._runner.run, item, current.canceled
            )
        except Exception as error:  # noqa: BLE001  (an internal error: the item fails, the worker continues)
            _log.exception("item %s could not be run", item.item_id)
            return Outcome("failed", None, describe(error), broken=True)
        finally:
            self._current = None
            if current.canceled.is_set():
                self._heartbeat_sink.heartbeat(None)  # at once: the server kills a worker that does not stop in time

    async def _settle(self, item: ClaimedItem, outcome: Outcome) -> None:
        """Store the item's result, then announce it.

        If the database refuses the result (invalid text, for example), the item fails with that error. Any other error is
        tried again, without another claim, until the database has an end of the item or the worker stops: an item in
        progress would stay so as long as its worker lives.
        """
        failure = f"the result of item {item.item_id} is not stored yet"
        errors = RepeatedErrors("finish_item", failure=failure, logger=_log, expected=TRANSIENT_ERRORS)
        tries, is_refused = 0, False
        while True:
            try:
                is_settled = await self._queue.finish(item, outcome)
                break
            except Exception as error:  # noqa: BLE001  (tried again)
                if not (is_refused or isinstance(error, TRANSIENT_ERRORS)):
                    _log.exception("the result of item %s is refused: the item fails", item.item_id)
                    outcome, is_refused = Outcome("failed", None, describe(error), broken=True), True
                    continue
                errors.report(error)
            if self._stopping.is_set() and tries >= len(RETRY_S):
                _log.error("the result of item %s is not stored: the worker stops", item.item_id)
                return
            await self._pause(RETRY_S[min(tries, len(RETRY_S) - 1)])
            tries += 1
        errors.note_success()
        if is_settled and outcome.announce:
            outcome.announce()
        if outcome.broken:
            await self._pause(PAUSE_AFTER_ERROR_S)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not past a stop."""
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, RETRY_S[0]))
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _send_heartbeat(self) -> None:
        """Send a heartbeat, and interrupt the item if its row is no longer in progress, in case a cancel was lost."""
        self._heartbeat_sink.heartbeat(self.item_id)
        current = self._current
        if current is None or current.canceled.is_set():
            return
        with contextlib.suppress(*TRANSIENT_ERRORS):
            if not await self._queue.is_running(current.item):
                self._interrupt(current)


_OUT_OF_MEMORY_HINT = (
    " - the device's memory is full: generate smaller or fewer images, or set enable_partial_loading, fp8_storage of the model or "
    "force_tiled_decode"
)


def describe(error: BaseException) -> ItemError:
    """Return the three error fields of `error`."""
    message = str(error)
    if type(error).__name__ == "OutOfMemoryError":  # of torch, which is not imported here
        message = f"{message}{_OUT_OF_MEMORY_HINT}"
    elif hint := advice(error):
        message = f"{message} - {hint}"
    return ItemError(type(error).__name__, message, "".join(traceback.format_exception(error)))
