"""What the server knows of one worker: its device, its process at present, what that runs and was asked."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from invokeclone.kit.errors import Unavailable
from invokeclone.kit.metrics import MetricValues
from invokeclone.server.supervision.deadlines import CancelDeadline
from invokeclone.server.supervision.link import Message, WorkerLink
from invokeclone.worker.metrics import METRICS


@dataclass(eq=False)
class Worker:
    """One device and the process that serves it at present."""

    device: str
    link: WorkerLink | None = None
    ready: bool = False
    item_id: int | None = None
    queue_id: str | None = None
    user_id: str | None = None
    last_message_at: float = 0.0
    killed_for: str | None = None
    """Why we ended the process, where we did."""
    deadline: CancelDeadline = field(init=False)
    messages_sent: int = 0
    """Messages sent to the process, and (`asked_to_stop`) how many these were with the latest cancel."""
    sent_at_cancel: int = 0
    pending_requests: dict[int, asyncio.Future[Any]] = field(default_factory=dict)
    restarts: int = 0
    """How many processes were started after the first."""
    metrics: MetricValues = field(default_factory=lambda: MetricValues(METRICS))
    """What the process has counted so far, and (`earlier_metrics`) what those before it had."""
    earlier_metrics: MetricValues = field(default_factory=lambda: MetricValues(METRICS))

    def __post_init__(self) -> None:
        self.deadline = CancelDeadline(self._overdue)

    def _overdue(self, item_id: int) -> None:
        reason = f"the worker for {self.device} is replaced: item {item_id} was canceled and did not stop"
        self.kill(reason)

    def kill(self, reason: str) -> None:
        """End the process, because of what `reason` says."""
        if self.link is not None:
            self.killed_for = reason
            self.link.kill()

    def send(self, message: Message) -> None:
        """Queue one message; without effect while there is no process."""
        if self.link is not None:
            self.messages_sent += 1
            self.link.send(message)

    def expect_end(self, item_id: int, seconds: float) -> None:
        """End the process unless the item, whose cancel was just sent, stops in time."""
        self.sent_at_cancel = self.messages_sent
        self.deadline.start(item_id, seconds)

    def log_fields(self, action: str) -> dict[str, Any]:
        """Return what a line of the log about this worker carries."""
        running = {"item_id": self.item_id, "user_id": self.user_id} if self.item_id is not None else {}
        return {"action": action, "device": self.device, **running}

    def on_heartbeat(self, message: Message) -> None:
        """Note what the process runs and counts. A heartbeat that it sent before it read the cancel says nothing about that."""
        if "metrics" in message:
            self.metrics = MetricValues.read(METRICS, message["metrics"])
        if int(message.get("received") or 0) >= self.sent_at_cancel:
            self.deadline.running(message.get("item_id"))

    def mark_lost(self, reason: str) -> None:
        """Forget the process: nobody waits for its answers any more."""
        self.link, self.ready, self.item_id, self.queue_id, self.user_id = None, False, None, None, None
        self.deadline.clear()
        self.earlier_metrics.include(self.metrics, gauges=False)
        self.metrics = MetricValues(METRICS)
        for future in self.pending_requests.values():
            if not future.done():
                future.set_exception(Unavailable(reason))
        self.pending_requests.clear()
