"""Sends deliveries that are due, in the server: signed, several at a time, retried with exponential back-off.

Each attempt is claimed first by a conditional update, so that of several servers on one database one makes it. Its lease
is longer than an attempt may take; when a server dies, the delivery is due again at the end of the lease, and a receiver
that has got it already recognizes its id. An event therefore arrives at least once, and events may arrive in any order.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from invokeclone.downloads.web import WebClient
from invokeclone.kit import log
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.metrics import MetricValues
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.prepared_statements import without_nul
from invokeclone.kit.sql.transactions import Changes
from invokeclone.kit.times import after, now
from invokeclone.webhooks import outbox, signing, store
from invokeclone.webhooks.errors import TooManyTests
from invokeclone.webhooks.metrics import ATTEMPTS
from invokeclone.webhooks.schemas import WebhookTestResult
from invokeclone.webhooks.store import ClaimedDelivery, DueDelivery, Failing

TIMEOUT_S = 15.0
LEASE_S = 60.0
MAX_ATTEMPTS = 9
MAX_CLAIMS = 100
"""Attempts with and without a result; one has none if its process dies, or its result cannot be recorded."""
FIRST_DELAY_S, DELAY_FACTOR, MAX_DELAY_S = 5.0, 4.0, 16 * 3600.0
"""Attempts after 5 s, 20 s, 80 s … 16 h: the last one about a day after the event."""
LONGEST_RETRY_AFTER_S = 24 * 3600.0
DISABLE_AFTER_S, DISABLE_AFTER_PERIODS = 3 * 24 * 3600.0, 6
"""A webhook is disabled when both are reached: a clock that is set forward, or days without a server, fail no attempts."""
KEPT_S = 7 * 24 * 3600.0
"""How long finished deliveries are kept."""
CLEANUP_INTERVAL_S = 3600.0
POLL_S = 10.0
CONCURRENT_ATTEMPTS = 32
CONCURRENT_PER_WEBHOOK = 2
CONCURRENT_PER_USER = 8
CONCURRENT_FAILING = 16
"""Attempts at webhooks whose last attempt failed. These limits leave attempts to the others if receivers are slow."""
CONCURRENT_TESTS = 16
CONCURRENT_TESTS_PER_USER = 2
LONGEST_ERROR = 500
GONE = 410

_log = log.get("webhooks")


class AttemptResult(NamedTuple):
    """The result of one attempt."""

    status: int | None
    error: str | None
    retry_after: float | None = None


class _Usage:
    """What of the limits of concurrent attempts is used."""

    def __init__(self, running: Iterable[DueDelivery]) -> None:
        self._webhooks: Counter[str] = Counter()
        self._users: Counter[str] = Counter()
        self.failing = 0
        for due in running:
            self._count(due)

    def _count(self, due: DueDelivery) -> None:
        self._webhooks[due.webhook_id] += 1
        self._users[due.user_id] += 1
        self.failing += due.failing_since is not None

    @property
    def busy_webhooks(self) -> list[str]:
        """The webhooks at which no more attempts may be started."""
        return [webhook_id for webhook_id, number in self._webhooks.items() if number >= CONCURRENT_PER_WEBHOOK]

    @property
    def busy_users(self) -> list[str]:
        """The users for whom no more attempts may be started."""
        return [user_id for user_id, number in self._users.items() if number >= CONCURRENT_PER_USER]

    def add(self, due: DueDelivery) -> bool:
        """Count an attempt if it may be started, and return whether it may."""
        is_allowed = (
            self._webhooks[due.webhook_id] < CONCURRENT_PER_WEBHOOK
            and self._users[due.user_id] < CONCURRENT_PER_USER
            and (due.failing_since is None or self.failing < CONCURRENT_FAILING)
        )
        if is_allowed:
            self._count(due)
        return is_allowed


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
        self._attempts: dict[asyncio.Task[None], tuple[DueDelivery, ClaimedDelivery]] = {}
        self._tests: Counter[str] = Counter()
        """Number of running tests by user."""
        self._next_cleanup = 0.0

    async def start(self) -> None:
        """Begin to send, also what an earlier server left."""
        self._loop.start()

    async def stop(self) -> None:
        """Stop sending; deliveries whose attempts are interrupted are due at once for the next server."""
        await self._loop.stop()
        interrupted = [claimed for _, claimed in self._attempts.values()]
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

    async def test(self, user_id: str, url: str, secret: str) -> WebhookTestResult:
        """Send a test event of a user once. Raises TooManyTests."""
        if self._tests[user_id] >= CONCURRENT_TESTS_PER_USER:
            raise TooManyTests(CONCURRENT_TESTS_PER_USER, "yours")
        if self._tests.total() >= CONCURRENT_TESTS:
            raise TooManyTests(CONCURRENT_TESTS, "all users")
        data = {"message": "This is a test of the webhook."}
        body = outbox.write_body("webhook_test", data)
        self._tests[user_id] += 1
        try:
            result = await self._post(url, secret, outbox.new_id(), body)
        finally:
            self._tests -= Counter({user_id: 1})
        return WebhookTestResult(delivered=result.error is None, response_status=result.status, error=result.error)

    # The loop

    async def _run_once(self) -> None:
        while await self._start_due():
            pass
        await self._clean_up()

    async def _start_due(self) -> bool:
        """Start attempts as far as allowed; return whether there may be more to start."""
        free = CONCURRENT_ATTEMPTS - len(self._attempts)
        if free <= 0:
            return False
        usage = _Usage(due for due, _ in self._attempts.values())
        listed = await store.list_due(
            self._resources.database,
            free,
            busy_webhooks=usage.busy_webhooks,
            busy_users=usage.busy_users,
            failing=usage.failing < CONCURRENT_FAILING,
        )
        startable = [due for due in listed if usage.add(due)]
        if not startable:
            return False

        async def claim(connection: Changes) -> list[tuple[DueDelivery, ClaimedDelivery | None]]:
            lease = after(LEASE_S)
            return [(due, await _claim(connection, due, lease)) for due in startable]

        for due, claimed in await self._resources.database.transact(claim):
            if claimed is not None:
                task = asyncio.create_task(self._attempt(claimed), name=f"webhook {claimed.webhook_id}")
                self._attempts[task] = (due, claimed)
                task.add_done_callback(self._end_attempt)
        return True

    def _end_attempt(self, task: asyncio.Task[None]) -> None:
        _, delivery = self._attempts.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the delivery %s has failed unexpectedly", delivery.delivery_id, exc_info=error)
        self.wake()

    async def _clean_up(self) -> None:
        """Delete old deliveries, and correct those that were postponed when the clock was ahead; once in a while."""
        if time.monotonic() < self._next_cleanup:
            return

        async def clean_up(connection: Changes) -> None:
            await store.purge(connection, after(-KEPT_S))
            await store.advance(connection, after(2 * LONGEST_RETRY_AFTER_S))

        await self._resources.database.transact(clean_up)
        self._next_cleanup = time.monotonic() + CLEANUP_INTERVAL_S

    # One attempt

    async def _attempt(self, delivery: ClaimedDelivery) -> None:
        result = await self._post(delivery.url, delivery.secret, delivery.delivery_id, delivery.body)
        kind = await self._resources.database.transact(lambda connection: self._record(connection, delivery, result))
        self.numbers.add(ATTEMPTS, delivery.event, kind)
        extra = {"action": "send_webhook", "webhook_id": delivery.webhook_id, "delivery_id": delivery.delivery_id}
        if result.error is not None:
            _log.info("the webhook %s: %s (%s)", delivery.webhook_id, result.error, kind, extra=extra)

    async def _post(self, url: str, secret: str, delivery_id: str, text: str) -> AttemptResult:
        try:
            body = text.encode()
            signature = signing.headers(secret, delivery_id, int(time.time()), body)
            headers = {"Content-Type": "application/json", **signature}
            response = await self.web.post(url, body, headers, timeout_s=TIMEOUT_S)
        except InvokeCloneError as error:
            return AttemptResult(None, without_nul(str(error))[:LONGEST_ERROR])
        except Exception as error:  # noqa: BLE001  (an attempt that is not recorded would be repeated without end)
            _log.exception("the delivery %s could not be sent", delivery_id)
            return AttemptResult(None, f"an internal error: {type(error).__name__}")
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
        number = delivery.failed_attempts + 1
        is_last = number >= MAX_ATTEMPTS
        due_at, failed_at = (None, now()) if is_last else (after(self._delay(number, result)), None)
        await store.record(
            connection, delivery, failures=1, due_at=due_at, failed_at=failed_at, response_status=status, error=error
        )
        failing = await store.note_failure(connection, delivery.webhook_id)
        if reason := _reason_to_disable(status, error, failing):
            if await store.disable(connection, delivery.webhook_id, reason):
                _log.warning("the webhook %s is disabled: %s", delivery.webhook_id, reason)
            return "failed"
        return "failed" if is_last else "retried"

    def _delay(self, attempts: int, result: AttemptResult) -> float:
        """Return the seconds until the next attempt."""
        delay = min(self._first_delay_s * DELAY_FACTOR ** (attempts - 1), MAX_DELAY_S)
        requested = min(result.retry_after or 0.0, LONGEST_RETRY_AFTER_S)
        return max(delay * random.uniform(0.9, 1.1), requested)


def _reason_to_disable(status: int | None, error: str, failing: Failing | None) -> str | None:
    if status == GONE:
        return "the URL responded that it is gone (410)"
    if failing and failing.periods >= DISABLE_AFTER_PERIODS and failing.since <= after(-DISABLE_AFTER_S):
        return f"every attempt since {failing.since} UTC has failed, the last one because {error}"
    return None


async def _claim(connection: Changes, due: DueDelivery, lease: str) -> ClaimedDelivery | None:
    """Claim a delivery; None if another server has, or if it fails now after `MAX_CLAIMS`."""
    claimed = await store.claim(connection, due.delivery_id, due.due_at, lease)
    if claimed is None or claimed.attempts <= MAX_CLAIMS:
        return claimed
    error = f"of {MAX_CLAIMS} attempts, {claimed.failed_attempts} had a result"
    await store.record(connection, claimed, failed_at=now(), error=error)
    _log.error("the delivery %s has failed: %s", claimed.delivery_id, error, extra={"action": "send_webhook"})
    return None


async def _release(connection: Changes, interrupted: list[ClaimedDelivery]) -> None:
    for delivery in interrupted:
        await store.record(connection, delivery, due_at=now(), error="the server was stopped")
