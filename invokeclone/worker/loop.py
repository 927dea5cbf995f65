"""Claim an item, run it in the node thread, settle it, next: the loop that a worker process is.

It knows states and failures and refuses to know SQL (`Queue`) and nodes (`Runner`). This is the one place besides the event
forwarder that catches everything: an item that breaks the machinery fails, and the loop goes on.
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
from invokeclone.queue.rows import ClaimedItem
from invokeclone.queue.service import ItemError
from invokeclone.worker.missing import advice

POLL_S = 1.0
"""How long an idle worker waits for a word before it looks at the queue by itself."""
HEARTBEAT_S = 1.0
PAUSE_AFTER_ERROR_S = 1.0
RETRY_S = (0.05, 0.2, 1.0, 5.0)
"""Waits between tries to write to a database that is locked, full or failing; the last one repeats."""
REMEMBERED_CANCELS = 1000
TRANSIENT_ERRORS = (OperationalError, NoConnection, OSError)
"""Errors of a database that may be gone the next time: locked, disk full, I/O."""

_log = log.get("worker.loop")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended. `announce` sends what may only be told once the item's status is written.

    One that is `waiting` has not ended: its row says what it waits for, and is somebody else's by now.
    """

    status: Literal["completed", "failed", "canceled", "waiting"]
    session_json: str | None
    """What follows the graph in the session's JSON, which a run does not change."""
    error: ItemError | None = None
    announce: Callable[[], None] | None = None
    broken: bool = False


class Queue(Protocol):
    """The queue as the loop needs it."""

    async def claim(self) -> ClaimedItem | None:
        """Take the next item, if there is one and the processor isn't paused."""
        ...

    async def finish(self, item: ClaimedItem, outcome: Outcome) -> bool:
        """Write session and status and tell whether the status is ours; one that is terminal already stays as it is."""
        ...

    async def is_running(self, item: ClaimedItem) -> bool:
        """Tell whether the item's row still says that it is being run; false when it ended otherwise or is gone."""
        ...


class Runner(Protocol):
    """Runs a session."""

    def run(self, item: ClaimedItem, canceled: threading.Event) -> Outcome:
        """Run `item` to its end in the calling thread; what it raises is an error of the machinery."""
        ...

    def interrupt(self) -> None:
        """Have the node that is being run look more closely whether its item was canceled, which it was."""
        ...


class HeartbeatSink(Protocol):
    """What the loop tells the server about itself."""

    def heartbeat(self, item_id: int | None) -> None:
        """Tell that the loop turns, and what it runs."""
        ...


@dataclass(frozen=True, slots=True)
class _Current:
    item: ClaimedItem
    canceled: threading.Event


class Loop:
    """One worker's loop. `wake`, `cancel` and `stop` are called on its event loop."""

    def __init__(self, queue: Queue, runner: Runner, heartbeat_sink: HeartbeatSink) -> None:
        """Take items of `queue` and run them with `runner`."""
        self._queue = queue
        self._runner = runner
        self._heartbeat_sink = heartbeat_sink
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._current: _Current | None = None
        self._canceled: collections.deque[int] = collections.deque(maxlen=REMEMBERED_CANCELS)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="node")

    @property
    def item_id(self) -> int | None:
        """The item that is being run."""
        return self._current.item.item_id if self._current else None

    def wake(self) -> None:
        """Look at the queue at once."""
        self._wake.set()

    def cancel(self, item_id: int) -> None:
        """Stop running `item_id` at its next check; its row says canceled already.

        The word may be faster than the claim's answer, so the last ones are remembered (ids are never used again).
        """
        self._canceled.append(item_id)
        if self._current and self._current.item.item_id == item_id:
            self._interrupt(self._current)

    def between_items(self, work: Callable[[], None]) -> None:
        """Do `work` in the node thread, where no item runs meanwhile: after the present one, before the next."""
        self._thread.submit(work)

    def stop(self) -> None:
        """Take no more items; the running one stops at its next check and its row is left to the server."""
        self._stopping.set()
        self._wake.set()
        if self._current:
            self._interrupt(self._current)

    def _interrupt(self, current: _Current) -> None:
        current.canceled.set()
        self._runner.interrupt()

    async def run(self) -> None:
        """Turn until stopped."""
        heartbeat_task = asyncio.create_task(self._send_heartbeats(), name="heartbeat")
        try:
            while not self._stopping.is_set():
                try:
                    await self._run_next()
                except Exception:  # noqa: BLE001  (the loop outlives everything but its end)
                    _log.exception("the worker's loop stumbled")
                    await self._pause(PAUSE_AFTER_ERROR_S)
        finally:
            heartbeat_task.cancel()
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
        except Exception as error:  # noqa: BLE001  (a non-fatal processor error: this item fails, the worker goes on)
            _log.exception("item %s could not be run", item.item_id)
            return Outcome("failed", None, describe(error), broken=True)
        finally:
            self._current = None
            if current.canceled.is_set():
                self._heartbeat_sink.heartbeat(None)  # at once: the server ends a worker that does not stop in time

    async def _settle(self, item: ClaimedItem, outcome: Outcome) -> None:
        """Write how the item ended, however long the database refuses, then tell.

        What can't be written at all (a session that is no text, say) must not leave the item running forever.
        """
        try:
            is_settled = await self._finish_with_retries(item, outcome)
        except Exception as error:  # noqa: BLE001  (the item fails with what was wrong with its end)
            _log.exception("the end of item %s can't be written", item.item_id)
            outcome = Outcome("failed", None, describe(error), broken=True)
            is_settled = await self._finish_with_retries(item, outcome)
        if is_settled and outcome.announce:
            outcome.announce()
        if outcome.broken:
            await self._pause(PAUSE_AFTER_ERROR_S)

    async def _finish_with_retries(self, item: ClaimedItem, outcome: Outcome) -> bool:
        tries = 0
        while True:
            try:
                return await self._queue.finish(item, outcome)
            except TRANSIENT_ERRORS as error:
                if self._stopping.is_set() and tries >= len(RETRY_S):
                    raise
                wait = RETRY_S[min(tries, len(RETRY_S) - 1)]
                tries += 1
                _log.warning("the end of item %s isn't written yet, again in %s s: %s", item.item_id, wait, error)
                await self._pause(wait)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not past the stop."""
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, RETRY_S[0]))
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _send_heartbeats(self) -> None:
        """Tell that we live; and look whether the running item's row still wants it run, should a cancel get lost."""
        while True:
            self._heartbeat_sink.heartbeat(self.item_id)
            await asyncio.sleep(HEARTBEAT_S)
            current = self._current
            if current is None or current.canceled.is_set():
                continue
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
    if type(error).__name__ == "OutOfMemoryError":  # torch's; it is not imported here
        message = f"{message}{_OUT_OF_MEMORY_HINT}"
    elif hint := advice(error):
        message = f"{message} - {hint}"
    return ItemError(type(error).__name__, message, "".join(traceback.format_exception(error)))
