"""Deliveries: signed, retried, given up, made by one of several servers, resumed after a crash, and to public URLs only."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from invokeclone.kit.resources import Resources
from invokeclone.kit.times import after, now
from invokeclone.tables import webhook_deliveries, webhooks
from invokeclone.webhooks import metrics, signing, store
from invokeclone.webhooks import sender as module
from invokeclone.webhooks.sender import AttemptResult, WebhookSender
from tests.webhooks.conftest import Hooks, Receiver, until


async def set_all(hooks: Hooks, table: Any, **values: Any) -> None:
    async with hooks.database.write() as connection:
        await connection.execute(update(table).values(**values))


async def test_deliveries_are_signed_json(hooks: Hooks, receiver: Receiver, start_sender: Any) -> None:
    webhook_id = await hooks.add(receiver.url("/hook?x=1"))
    await hooks.emit(webhook_id)
    await start_sender()
    (delivery,) = await hooks.settled()
    ((headers, body),) = receiver.received
    assert receiver.bodies[0]["type"] == "batch_done"
    assert receiver.bodies[0]["data"] == {"number": 0}
    assert headers["Content-Type"] == "application/json"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 600
    secret = (await hooks.row(webhook_id))["secret"]
    expected = signing.headers(secret, delivery["delivery_id"], int(headers["webhook-timestamp"]), body)
    assert {name: headers[name] for name in expected} == expected
    assert (delivery["response_status"], delivery["attempts"], delivery["error"]) == (200, 1, None)
    assert delivery["delivered_at"]


async def test_a_failed_delivery_is_repeated_with_its_id_and_body(
    hooks: Hooks, receiver: Receiver, start_sender: Any
) -> None:
    receiver.statuses = [500, 404, 302]
    receiver.headers = {"Location": receiver.url("/elsewhere")}
    webhook_id = await hooks.add(receiver.url())
    await hooks.emit(webhook_id)
    sender = await start_sender(first_delay_s=0.0)
    (delivery,) = await hooks.settled()
    assert (delivery["attempts"], delivery["response_status"]) == (4, 200)
    assert len(receiver.received) == 4, "redirects are not followed"
    assert len(set(receiver.ids)) == len({body for _, body in receiver.received}) == 1
    assert (await hooks.row(webhook_id))["failing_since"] is None
    await until(lambda: sum(values[0] for values in sender.numbers.series(metrics.ATTEMPTS).values()) == 4)
    assert sender.numbers.series(metrics.ATTEMPTS) == {("batch_done", "retried"): [3], ("batch_done", "delivered"): [1]}


async def test_attempts_end_about_a_day_after_the_event(hooks: Hooks, receiver: Receiver, start_sender: Any) -> None:
    receiver.statuses = [503] * 100
    webhook_id = await hooks.add(receiver.url())
    await hooks.emit(webhook_id)
    await start_sender(first_delay_s=0.0)
    (delivery,) = await hooks.settled()
    assert len(receiver.received) == delivery["attempts"] == module.MAX_ATTEMPTS
    assert delivery["failed_at"]
    assert delivery["error"] == "the response has the status 503"
    assert (await hooks.row(webhook_id))["failing_since"] is not None
    assert (await hooks.row(webhook_id))["disabled_at"] is None


def test_delays_grow_to_a_day_in_total_and_obey_the_receiver(resources: Resources) -> None:
    sender, failed = WebhookSender(resources), AttemptResult(503, "x")
    delays = [sender._delay(attempt, failed) for attempt in range(1, module.MAX_ATTEMPTS)]
    assert delays == sorted(delays)
    assert 0.9 * 5 <= delays[0] <= 1.1 * 5
    assert 20 * 3600 < sum(delays) < 28 * 3600
    assert sender._delay(1, failed._replace(retry_after=600)) == 600
    assert sender._delay(1, failed._replace(retry_after=1e9)) == module.LONGEST_RETRY_AFTER_S


@pytest.mark.parametrize(
    ("status", "failing_for", "periods", "reason"),
    [
        (410, 0, 0, "gone (410)"),
        (500, module.DISABLE_AFTER_S + 60, module.DISABLE_AFTER_PERIODS - 1, "the response has the status 500"),
        (500, module.DISABLE_AFTER_S + 60, module.DISABLE_AFTER_PERIODS - 2, None),
        (500, 3600, module.DISABLE_AFTER_PERIODS, None),
    ],
)
async def test_webhooks_that_are_gone_or_fail_for_days_are_disabled(
    hooks: Hooks,
    receiver: Receiver,
    start_sender: Any,
    status: int,
    failing_for: float,
    periods: int,
    reason: str | None,
) -> None:
    webhook_id = await hooks.add(receiver.url())
    await set_all(hooks, webhooks, failing_since=after(-failing_for) if failing_for else None, failing_periods=periods)
    await hooks.emit(webhook_id)
    receiver.statuses = [status]
    await start_sender(first_delay_s=0.0)
    (delivery,) = await hooks.settled()
    row = await hooks.row(webhook_id)
    if reason is None:
        assert delivery["delivered_at"]
        assert row["disabled_at"] is None
    else:
        assert reason in row["disabled_reason"]
        assert delivery["failed_at"]
        assert len(receiver.received) == 1


async def test_several_servers_make_each_delivery_once(hooks: Hooks, receiver: Receiver, start_sender: Any) -> None:
    for _ in range(4):
        await hooks.emit(await hooks.add(receiver.url()), 15)
    for _ in range(3):
        await start_sender()
    deliveries = await hooks.settled()
    assert len(deliveries) == 60
    assert sorted(receiver.ids) == sorted(delivery["delivery_id"] for delivery in deliveries)
    assert {delivery["attempts"] for delivery in deliveries} == {1}


async def test_what_a_dead_server_claimed_is_sent_again_after_its_lease(
    hooks: Hooks, receiver: Receiver, start_sender: Any
) -> None:
    await hooks.emit(await hooks.add(receiver.url()))
    (due,) = await store.list_due(hooks.database, 9)
    delivery_id, due_at = due.delivery_id, due.due_at
    lost = await hooks.database.transact(lambda changes: store.claim(changes, delivery_id, due_at, after(3600)))
    assert lost
    assert await hooks.database.transact(lambda changes: store.claim(changes, delivery_id, due_at, after(9))) is None
    await start_sender()
    await asyncio.sleep(0.1)
    assert receiver.received == []
    await set_all(hooks, webhook_deliveries, due_at=now())
    (delivery,) = await hooks.settled()
    assert (receiver.ids, delivery["attempts"]) == ([delivery_id], 2)
    late = await hooks.database.transact(lambda changes: store.record(changes, lost, failed_at=now(), error="late"))
    assert not late
    assert (await hooks.deliveries())[0]["error"] is None


async def test_a_stopped_server_leaves_its_attempts_to_the_next_one(
    hooks: Hooks, receiver: Receiver, start_sender: Any
) -> None:
    receiver.held = {"/slow"}
    await hooks.emit(await hooks.add(receiver.url("/slow")))
    sender = await start_sender()
    await until(lambda: receiver.received)
    await sender.stop()
    assert (await hooks.deliveries())[0]["due_at"] <= now()
    receiver.go.set()
    await start_sender()
    (delivery,) = await hooks.settled()
    assert delivery["attempts"] == 2
    assert len(set(receiver.ids)) == 1


async def test_a_slow_receiver_does_not_hold_up_others(hooks: Hooks, receiver: Receiver, start_sender: Any) -> None:
    receiver.held = {"/slow"}
    slow = await hooks.add(receiver.url("/slow"))
    await hooks.emit(slow, 30)
    await hooks.emit(await hooks.add(receiver.url("/fast")), 10)
    await start_sender()

    async def delivered() -> list[str]:
        return [row["webhook_id"] for row in await hooks.deliveries() if row["delivered_at"]]

    async with asyncio.timeout(20):
        while len(await delivered()) < 10:
            await asyncio.sleep(0.01)
    assert slow not in await delivered()
    assert len(receiver.received) == 10 + module.CONCURRENT_PER_WEBHOOK


async def test_receivers_that_do_not_respond_time_out(
    hooks: Hooks, receiver: Receiver, start_sender: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.05)
    receiver.held = {"/slow"}
    await hooks.emit(await hooks.add(receiver.url("/slow")))
    await start_sender(first_delay_s=3600)
    await until(lambda: receiver.received)
    async with asyncio.timeout(20):
        while not (row := (await hooks.deliveries())[0])["error"]:
            await asyncio.sleep(0.01)
    assert row["error"] == "the connection failed or timed out"
    assert row["due_at"] > after(3000)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://localhost/", "http://[::1]/", "http://10.0.0.1/"])
async def test_private_addresses_are_not_connected_to(resources: Resources, url: str) -> None:
    settings = resources.settings.model_copy(update={"allow_private_webhook_urls": False})
    sender = WebhookSender(replace(resources, settings=settings))
    result = await sender.test("system", url, signing.new_secret())
    assert not result.delivered
    assert "set allow_private_webhook_urls" in (result.error or "")


async def test_names_that_resolve_to_private_addresses_are_not_connected_to(
    resources: Resources, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", receiver.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    settings = resources.settings.model_copy(update={"allow_private_webhook_urls": False})
    sender = WebhookSender(replace(resources, settings=settings))
    result = await sender.test("system", f"http://hooks.example.com:{receiver.port}/", signing.new_secret())
    await sender.web.close()
    assert not result.delivered
    assert "set allow_private_webhook_urls" in (result.error or "")
    assert receiver.received == []


async def test_old_deliveries_are_deleted(hooks: Hooks, receiver: Receiver, start_sender: Any) -> None:
    webhook_id = await hooks.add(receiver.url())
    await hooks.emit(webhook_id)
    await set_all(hooks, webhook_deliveries, due_at=None, created_at=after(-module.KEPT_S - 60))
    await hooks.emit(webhook_id)
    await start_sender()
    async with asyncio.timeout(20):
        while len(await hooks.deliveries()) > 1:
            await asyncio.sleep(0.01)
    await hooks.settled()
    assert len(receiver.received) == 1
