"""The server's state of one worker: device, process, running item and pending requests."""

import asyncio
import signal
from dataclasses import dataclass, field
from typing import Any

from invokeclone.kit.errors import Unavailable
from invokeclone.kit.metrics import MetricValues
from invokeclone.server.supervision.deadlines import CancelDeadline
from invokeclone.server.supervision.link import Link, Message
from invokeclone.worker.metrics import METRICS


@dataclass(eq=False)
class Worker:
    """A device and its current worker process."""

    device: str
    worker_id: str = ""
    """Id of the current process, or of the latest one; claims are made with it."""
    link: Link | None = None
    name: str | None = None
    """Name of the machine of a joined worker; None for a process of this server."""
    ready: bool = False
    item_id: int | None = None
    queue_id: str | None = None
    user_id: str | None = None
    last_message_at: float = 0.0
    killed_for: str | None = None
    """The reason, if the supervisor killed the process."""
    deadline: CancelDeadline = field(init=False)
    messages_sent: int = 0
    """Number of messages sent to the process; `sent_at_cancel` is that number at the latest cancel."""
    sent_at_cancel: int = 0
    pending_requests: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    restarts: int = 0
    """Number of processes started after the first."""
    failures: int = 0
    """Number of processes in a row that ended unexpectedly and soon after their start."""
    failure: str = ""
    """Why the last of them ended."""
    metrics: MetricValues = field(default_factory=lambda: MetricValues(METRICS))
    """Metrics of the current process; `earlier_metrics` are the totals of its predecessors."""
    earlier_metrics: MetricValues = field(default_factory=lambda: MetricValues(METRICS))

    def __post_init__(self) -> None:
        self.deadline = CancelDeadline(self._overdue)

    def _overdue(self, item_id: int) -> None:
        reason = f"the worker for {self.device} is replaced: item {item_id} was canceled and did not stop"
        self.kill(reason)

    def kill(self, reason: str) -> None:
        """Kill the process for `reason`."""
        if self.link is not None:
            self.killed_for = reason
            self.link.kill()

    def send(self, message: Message) -> None:
        """Queue a message; does nothing without a process."""
        if self.link is not None:
            self.messages_sent += 1
            self.link.send(message)

    @property
    def is_running(self) -> bool:
        """Whether it runs items, or will as soon as it has started; not if its processes end again and again."""
        if self.name is not None:
            return self.link is not None
        return self.ready or self.failures == 0 or (self.failures == 1 and self.link is not None)

    def expect_end(self, item_id: int, seconds: float) -> None:
        """Kill the process unless the item, whose cancel was just sent, stops in time; does nothing without a process.

        The items of a dead process are failed before its successor starts, and the successor runs none of them.
        """
        if self.link is None:
            return
        self.sent_at_cancel = self.messages_sent
        self.deadline.start(item_id, seconds)

    def log_fields(self, action: str) -> dict[str, Any]:
        """Return the structured log fields about this worker."""
        running = {"item_id": self.item_id, "user_id": self.user_id} if self.item_id is not None else {}
        return {"action": action, "device": self.device, **running}

    def on_heartbeat(self, message: Message) -> None:
        """Update metrics and running item; the item is ignored if the heartbeat was sent before the cancel was read."""
        if "metrics" in message:
            self.metrics = MetricValues.read(METRICS, message["metrics"])
            if self.name is not None:  # it does not know its name among the devices of all machines
                self.metrics = self.metrics.with_label("device", self.device)
        if int(message.get("received") or 0) >= self.sent_at_cancel:
            self.deadline.running(message.get("item_id"))

    def disconnect(self, reason: str) -> None:
        """Reset what belongs to the connection, and fail its pending requests with `reason`."""
        self.link, self.ready = None, False
        self.deadline.clear()
        self.messages_sent = self.sent_at_cancel = 0
        for future in self.pending_requests.values():
            if not future.done():
                future.set_exception(Unavailable(reason))
        self.pending_requests.clear()

    def mark_lost(self, reason: str) -> None:
        """Reset the state after the process has ended, and fail its pending requests with `reason`."""
        self.disconnect(reason)
        self.item_id, self.queue_id, self.user_id = None, None, None
        self.earlier_metrics.include(self.metrics, gauges=False)
        self.metrics = MetricValues(METRICS)


def explain_exit(device: str, status: int) -> str:
    """Return a message about an exit status for the user whose item failed."""
    if status >= 0:
        return f"the worker process for {device} ended unexpectedly with exit status {status}"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else f"signal {-status}"
    hint = " (possibly out of memory)" if -status == signal.SIGKILL else ""
    return f"the worker process for {device} was killed by {name}{hint}"
