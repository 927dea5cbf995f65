"""Snapshot of all metrics of a server: its own counters, those of its workers, and database queries."""

from collections.abc import Iterable

from invokeclone.kit.metrics import Metric, MetricValues
from invokeclone.kit.services import Services
from invokeclone.kit.sql.database import Database
from invokeclone.queue import metrics as queue_metrics
from invokeclone.server.metrics import requests
from invokeclone.server.sockets import Sockets
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.server.supervision.workers import Worker
from invokeclone.shims.comfyui.sockets import Clients
from invokeclone.webhooks import metrics as webhook_metrics
from invokeclone.webhooks.sender import WebhookSender
from invokeclone.worker import metrics as worker_metrics

SOCKETS = Metric("invokeclone_connected_sockets", "gauge", "Connected clients, by protocol.", ("protocol",))
RESTARTS = Metric(
    "invokeclone_worker_restarts_total", "counter", "Worker processes started to replace one that ended.", ("device",)
)
READY = Metric(
    "invokeclone_worker_ready", "gauge", "1 while a worker of the device accepts items, else 0.", ("device",)
)
METRICS = (
    *queue_metrics.METRICS,
    *worker_metrics.METRICS,
    RESTARTS,
    READY,
    *requests.METRICS,
    SOCKETS,
    *webhook_metrics.METRICS,
)
"""All metrics of the server."""


async def measure(services: Services, database: Database) -> MetricValues:
    """Return the current values of all metrics."""
    queues = await queue_metrics.measure(database)
    numbers = MetricValues(METRICS)
    webhooks = await webhook_metrics.measure(database)
    for part in (queues, services.get(requests.RequestTimes).numbers, webhooks, services.get(WebhookSender).numbers):
        numbers.include(part)
    add_workers(numbers, services.get(Supervisor).workers)
    numbers.set(SOCKETS, "socket.io", value=services.get(Sockets).connected)
    numbers.set(SOCKETS, "comfyui", value=services.get(Clients).socket_count)
    return numbers


def add_workers(numbers: MetricValues, workers: Iterable[Worker]) -> None:
    """Add the metrics of `workers`, summed by device, as two workers may serve the same one."""
    for worker in workers:
        numbers.include(worker.earlier_metrics)
        numbers.include(worker.metrics)
        numbers.add(RESTARTS, worker.device, amount=worker.restarts)
        numbers.add(READY, worker.device, amount=int(worker.ready))
