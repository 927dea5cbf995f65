"""Sends deliveries that are due, in the server: signed, several at a time, retried with exponential back-off.

Each attempt is claimed first by a conditional update, so that of several servers on one database one makes it. Its lease
is longer than an attempt may take; when a server dies, the delivery is due again at the end of the lease, and a receiver
that has got it already recognizes its id. An event therefore arrives at least once, and events may arrive in any order.
"""

import asyncio
import random
import time
from collections import Counter
from typing import NamedTuple

from invokeclone.downloads.web import WebClient
from invokeclone.kit import log
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.metrics import MetricValues
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.transactions import Changes
from invokeclone.kit.times import after, now
from invokeclone.webhooks import outbox, signing, store
from invokeclone.webhooks.metrics import ATTEMPTS
from invokeclone.webhooks.schemas import WebhookTestResult
from invokeclone.webhooks.store import ClaimedDelivery

TIMEOUT_S = 15.0
LEASE_S = 60.0
MAX_ATTEMPTS = 9
FIRST_DELAY_S, DELAY_FACTOR, MAX_DELAY_S = 5.0, 4.0, 16 * 3600.0
"""Attempts after 5 s, 20 s, 80 s … 16 h: the last one about a day after the event."""
LONGEST_RETRY_AFTER_S = 24 * 3600.0
DISABLE_AFTER_S = 3 * 24 * 3600.0
KEPT_S = 7 * 24 * 3600.0
"""How long finished deliveries are kept."""
PURGE_INTERVAL_S = 3600.0
POLL_S = 10.0
CONCURRENT_ATTEMPTS = 8
CONCURRENT_PER_WEBHOOK = 2
"""So that a slow receiver leaves attempts to the others."""
CONCURRENT_TESTS = 4
LONGEST_ERROR = 500
GONE = 410

_log = log.get("webhooks")


class AttemptResult(NamedTuple):
    """The result of one attempt."""

    status: int | None
    error: str | None
    retry_after: float | None = None


class WebhookSender:
    """The deliveries of one server. Call `start`, and `stop` at the end; `wake` when there may be something to send."""

    def __init__(self, resources: Resources, *, poll_s: float = POLL_S, first_delay_s: float = FIRST_DELAY_S) -> None:
        """Create without starting; `first_delay_s` is the delay before the second attempt."""
        self._resources = resources
        self._first_delay_s = first_delay_s
        self.web = WebClient(resources.settings, webhooks=True)
        self.numbers = MetricValues((ATTEMPTS,))
        failure = "cannot read the deliveries of webhooks"
        self._loop = PeriodicTask("read_deliveries", self._run_once, poll_s, failure=failure, logger=_log)
        self._attempts: dict[asyncio.Task[None], ClaimedDelivery] = {}
        self._tests = asyncio.Semaphore(CONCURRENT_TESTS)
        self._next_purge = 0.0

    async def start(self) -> None:
        """Begin to send, also what an earlier server left."""
        self._loop.start()

    async def stop(self) -> None:
        """Stop sending; deliveries whose attempts are interrupted are due at once for the next server."""
        await self._loop.stop()
        interrupted = list(self._attempts.values())
        tasks = list(self._attempts)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if interrupted:
            await self._resources.database.transact(lambda connection: _release(connection, interrupted))
        await self.web.close()

    def wake(self) -> None:
        """Check for deliveries now."""
        self._loop.wake()

    async def test(self, url: str, secret: str) -> WebhookTestResult:
        """Send a test event once."""
        data = {"message": "This is a test of the webhook."}
        body = outbox.write_body("webhook_test", data)
        async with self._tests:
            result = await self._post(url, secret, outbox.new_id(), body)
        return WebhookTestResult(delivered=result.error is None, response_status=result.status, error=result.error)

    # The loop

    async def _run_once(self) -> None:
        while await self._start_due():
            pass
        await self._purge()

    async def _start_due(self) -> bool:
        """Start attempts as far as allowed; return whether there may be more to start."""
        free = CONCURRENT_ATTEMPTS - len(self._attempts)
        if free <= 0:
            return False
        running = Counter(delivery.webhook_id for delivery in self._attempts.values())
        busy = [webhook_id for webhook_id, number in running.items() if number >= CONCURRENT_PER_WEBHOOK]
        due = await store.list_due(self._resources.database, busy, free)
        startable = []
        for delivery_id, due_at, webhook_id in due:
            running[webhook_id] += 1
            if running[webhook_id] <= CONCURRENT_PER_WEBHOOK:
                startable.append((delivery_id, due_at))
        if not startable:
            return False

        async def claim(connection: Changes) -> list[ClaimedDelivery]:
            lease = after(LEASE_S)
            claimed = [await store.claim(connection, delivery_id, due_at, lease) for delivery_id, due_at in startable]
            return [delivery for delivery in claimed if delivery]

        for delivery in await self._resources.database.transact(claim):
            task = asyncio.create_task(self._attempt(delivery), name=f"webhook {delivery.webhook_id}")
            self._attempts[task] = delivery
            task.add_done_callback(self._end_attempt)
        return True

    def _end_attempt(self, task: asyncio.Task[None]) -> None:
        delivery = self._attempts.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the delivery %s has failed unexpectedly", delivery.delivery_id, exc_info=error)
        self.wake()

    async def _purge(self) -> None:
        if time.monotonic() < self._next_purge:
            return
        self._next_purge = time.monotonic() + PURGE_INTERVAL_S
        await self._resources.database.transact(lambda connection: store.purge(connection, after(-KEPT_S)))

    # One attempt

    async def _attempt(self, delivery: ClaimedDelivery) -> None:
        result = await self._post(delivery.url, delivery.secret, delivery.delivery_id, delivery.body)
        kind = await self._resources.database.transact(lambda connection: self._record(connection, delivery, result))
        self.numbers.add(ATTEMPTS, delivery.event, kind)
        extra = {"action": "send_webhook", "webhook_id": delivery.webhook_id, "delivery_id": delivery.delivery_id}
        if result.error is not None:
            _log.info("the webhook %s: %s (%s)", delivery.webhook_id, result.error, kind, extra=extra)

    async def _post(self, url: str, secret: str, delivery_id: str, text: str) -> AttemptResult:
        body = text.encode()
        headers = {
            "Content-Type": "application/json",
            **signing.headers(secret, delivery_id, int(time.time()), body),
        }
        try:
            response = await self.web.post(url, body, headers, timeout_s=TIMEOUT_S)
        except InvokeCloneError as error:
            return AttemptResult(None, str(error)[:LONGEST_ERROR])
        if 200 <= response.status < 300:  # noqa: PLR2004  (successful statuses)
            return AttemptResult(response.status, None)
        return AttemptResult(response.status, f"the response has the status {response.status}", response.retry_after)

    async def _record(self, connection: Changes, delivery: ClaimedDelivery, result: AttemptResult) -> str:
        """Record an attempt and return the kind of its result; disable a webhook that is gone or has failed for days."""
        status, error = result.status, result.error
        if error is None:
            await store.record(connection, delivery, delivered_at=now(), response_status=status)
            await store.note_success(connection, delivery.webhook_id)
            return "delivered"
        is_last = delivery.attempts >= MAX_ATTEMPTS
        due_at, failed_at = (None, now()) if is_last else (after(self._delay(delivery.attempts, result)), None)
        await store.record(
            connection, delivery, due_at=due_at, failed_at=failed_at, response_status=status, error=error
        )
        failing_since = await store.note_failure(connection, delivery.webhook_id)
        if reason := _reason_to_disable(status, error, failing_since):
            if await store.disable(connection, delivery.webhook_id, reason):
                _log.warning("the webhook %s is disabled: %s", delivery.webhook_id, reason)
            return "failed"
        return "failed" if is_last else "retried"

    def _delay(self, attempts: int, result: AttemptResult) -> float:
        """Return the seconds until the next attempt."""
        delay = min(self._first_delay_s * DELAY_FACTOR ** (attempts - 1), MAX_DELAY_S)
        requested = min(result.retry_after or 0.0, LONGEST_RETRY_AFTER_S)
        return max(delay * random.uniform(0.9, 1.1), requested)


def _reason_to_disable(status: int | None, error: str, failing_since: str | None) -> str | None:
    if status == GONE:
        return "the URL responded that it is gone (410)"
    if failing_since is not None and failing_since <= after(-DISABLE_AFTER_S):
        return f"every attempt since {failing_since} UTC has failed, the last one because {error}"
    return None


async def _release(connection: Changes, interrupted: list[ClaimedDelivery]) -> None:
    for delivery in interrupted:
        await store.record(connection, delivery, due_at=now(), error="the server was stopped")
