"""Changes of the clock: what counts are attempts that failed, not only the time that seems to have passed."""

from typing import Any

from sqlalchemy import update

from invokeclone.kit.times import after, now
from invokeclone.tables import webhook_deliveries
from invokeclone.webhooks import sender as module
from invokeclone.webhooks import store
from tests.webhooks.conftest import Clock, Hooks, Receiver, until

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


async def failing(hooks: Hooks, webhook_id: str) -> int:
    """Record a failed attempt, and return the number of periods with failed attempts."""
    noted = await hooks.database.transact(lambda changes: store.note_failure(changes, webhook_id))
    assert noted
    return noted.periods


async def test_a_clock_set_forward_disables_no_webhook(
    hooks: Hooks, receiver: Receiver, start_sender: Any, clock: Clock
) -> None:
    """The first attempt fails before, many at once after it."""
    webhook_id = await hooks.add(receiver.url())
    receiver.statuses = [500] * 6
    await hooks.emit(webhook_id)
    sender = await start_sender(first_delay_s=600.0)
    await hooks.failed_once(webhook_id)
    clock.ahead_s = 3 * DAY_S + 60
    await hooks.emit(webhook_id, 5)
    sender.wake()
    await until(lambda: not receiver.statuses and not sender._attempts)
    clock.ahead_s += DAY_S
    sender.wake()
    deliveries = await hooks.settled()
    assert all(delivery["delivered_at"] for delivery in deliveries)
    row = await hooks.row(webhook_id)
    assert (row["disabled_at"], row["failing_since"], row["failing_periods"]) == (None, None, 0)


async def test_periods_with_failed_attempts_are_counted(hooks: Hooks, clock: Clock) -> None:
    webhook_id = await hooks.add("https://example.com/")
    counts = []
    for hour in range(0, 73, 3):
        clock.ahead_s = hour * HOUR_S
        counts.append(await failing(hooks, webhook_id))
    assert counts[0] == 1
    assert counts.index(module.DISABLE_AFTER_PERIODS) * 3 <= module.DISABLE_AFTER_S / HOUR_S
    assert counts[-1] == 7
    await hooks.database.transact(lambda changes: store.note_success(changes, webhook_id))
    assert await failing(hooks, webhook_id) == 1


async def test_a_clock_set_back_starts_a_period_anew(hooks: Hooks, clock: Clock) -> None:
    webhook_id = await hooks.add("https://example.com/")
    clock.ahead_s = 40 * DAY_S
    assert await failing(hooks, webhook_id) == 1
    clock.ahead_s = 0
    assert await failing(hooks, webhook_id) == 1
    assert (await hooks.row(webhook_id))["failing_since"] <= now()
    clock.ahead_s = DAY_S
    assert await failing(hooks, webhook_id) == 2


async def test_interrupted_attempts_are_not_failed_ones(hooks: Hooks, receiver: Receiver, start_sender: Any) -> None:
    """A server that died during each attempt, or whose leases ended early by its clock, leaves attempts without result."""
    webhook_id = await hooks.add(receiver.url())
    await hooks.emit(webhook_id)
    for _ in range(module.MAX_ATTEMPTS + 1):
        (due,) = await store.list_due(hooks.database, 1)
        delivery_id, due_at = due.delivery_id, due.due_at
        assert await hooks.database.transact(lambda c: store.claim(c, delivery_id, due_at, after(3600)))  # noqa: B023
        async with hooks.database.write() as connection:
            await connection.execute(update(webhook_deliveries).values(due_at=now()))
    receiver.statuses = [500]
    await start_sender(first_delay_s=0.0)
    (delivery,) = await hooks.settled()
    assert delivery["delivered_at"]
    assert (delivery["attempts"], delivery["failed_attempts"]) == (module.MAX_ATTEMPTS + 3, 1)
