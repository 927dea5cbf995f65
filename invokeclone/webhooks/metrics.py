"""Metrics of deliveries for `/metrics`."""

from invokeclone.kit.metrics import Metric, MetricValues
from invokeclone.kit.sql.prepared_statements import Source
from invokeclone.webhooks import store

ATTEMPTS = Metric(
    "invokeclone_webhook_attempts_total", "counter", "Attempts to deliver an event to a webhook.", ("event", "result")
)
PENDING = Metric("invokeclone_webhook_pending_deliveries", "gauge", "Events that are not yet delivered to a webhook.")
METRICS = (ATTEMPTS, PENDING)


async def measure(source: Source) -> MetricValues:
    """Return the number of unfinished deliveries of all servers of the database."""
    numbers = MetricValues((PENDING,))
    numbers.set(PENDING, value=await store.count_pending(source))
    return numbers
