"""Receivers that misbehave, webhooks and accounts that change during a delivery, and many deliveries that wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import update

from invokeclone.kit.resources import Resources
from invokeclone.kit.times import after
from invokeclone.tables import users, webhook_deliveries, webhooks
from invokeclone.webhooks import sender as module
from invokeclone.webhooks import signing, store
from invokeclone.webhooks.sender import WebhookSender
from tests.accounts import account
from tests.webhooks.conftest import Hooks, Receiver, until

OK = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def server_that_sends(start: bytes, repeated: bytes = b"") -> AsyncIterator[int]:
    """Serve `start` to each connection, then `repeated` until the client disconnects; yield the port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1)
            writer.write(start)
            while repeated:
                writer.write(repeated)
                await writer.drain()
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.mark.parametrize(
    ("start", "repeated", "status", "error"),
    [
        (OK + b"\r\n", b"x" * 65536, 200, None),  # an endless body, with a good status
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 5000, 200, None),
        (OK, b"x-more: " + b"y" * 5000 + b"\r\n", None, ""),  # endless headers
        (b"HTTP/1.1 200 " + b"O" * 100_000 + b"\r\n\r\n", b"", None, ""),
        (b"HTTP/1.1 200 OK" + b"K" * 1000, b"K" * 10_000, None, ""),  # an endless status line
        (OK + b"x: \x00\r\n\r\n", b"", None, ""),
        (OK + b"\xff\xfe: \xff\r\n\r\n", b"", None, ""),
        (OK + b"Content-Length: -5\r\n\r\n", b"", None, ""),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, None, "timed out"),
        (b"\x16\x03\x01\x00\x00garbage\r\n\r\n", b"", None, ""),
        (b"", b"", None, ""),
        (b"HTTP/1.1 999 \xe2\x98\x83\r\n\r\n", b"", 999, "the response has the status 999"),
        (b"HTTP/1.1 429 Slow\r\nRetry-After: " + b"9" * 400 + b"\r\n\r\n", b"", 429, "the response has the status 429"),
    ],
)
async def test_strange_responses_are_results(
    resources: Resources,
    monkeypatch: pytest.MonkeyPatch,
    start: bytes,
    repeated: bytes,
    status: int | None,
    error: str | None,
) -> None:
    if error == "timed out":
        monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    sender = WebhookSender(resources)
    async with asyncio.timeout(20), server_that_sends(start, repeated) as port:
        result = await sender.test("system", f"http://127.0.0.1:{port}/", signing.new_secret())
        await sender.web.close()
    assert result.response_status == status
    assert result.delivered == (error is None)
    if error is not None:
        assert error in (result.error or "")
        assert result.error
        assert len(result.error) <= module.LONGEST_ERROR
        assert result.error.isprintable() or "\n" in result.error
        assert "\0" not in result.error


async def test_a_server_without_tls_is_reported(resources: Resources) -> None:
    sender = WebhookSender(resources)
    async with server_that_sends(b"HTTP/1.1 400 no\r\n\r\n") as port:
        result = await sender.test("system", f"https://127.0.0.1:{port}/", signing.new_secret())
        await sender.web.close()
    assert "no connection to 127.0.0.1" in (result.error or "")


async def change(hooks: Hooks, table: Any, condition: Any, **values: Any) -> None:
    async with hooks.database.write() as connection:
        await connection.execute(update(table).where(condition).values(**values))


async def test_a_webhook_is_deleted_while_it_gets_an_event(
    hooks: Hooks, receiver: Receiver, start_sender: Any, logged: list[Any]
) -> None:
    receiver.held, receiver.statuses = {"/slow"}, [410]
    webhook_id = await hooks.add(receiver.url("/slow"))
    await hooks.emit(webhook_id, 2)
    sender = await start_sender()
    await until(lambda: len(receiver.received) == 2)
    await hooks.database.transact(lambda connection: store.remove(connection, webhook_id))
    receiver.go.set()
    await until(lambda: not sender._attempts)
    assert await hooks.deliveries() == []
    assert [line.getMessage() for line in logged if line.levelname in {"WARNING", "ERROR"}] == []


async def test_deliveries_of_a_disabled_account_wait(hooks: Hooks, receiver: Receiver, start_sender: Any) -> None:
    eve = await account(hooks.database, "eve")
    await hooks.emit(await hooks.add(receiver.url("/eve"), user_id=eve.user_id))
    await change(hooks, users, users.c.user_id == eve.user_id, is_active=False)
    await hooks.emit(await hooks.add(receiver.url("/other")))
    sender = await start_sender()
    await until(lambda: len(receiver.received) == 1)
    sender.wake()
    await asyncio.sleep(0.1)
    assert len(receiver.received) == 1
    await change(hooks, users, users.c.user_id == eve.user_id, is_active=True)
    await hooks.settled()
    assert len(receiver.received) == 2


async def test_an_internal_error_is_a_failed_attempt(hooks: Hooks, receiver: Receiver, start_sender: Any) -> None:
    webhook_id = await hooks.add(receiver.url())
    await change(hooks, webhooks, webhooks.c.webhook_id == webhook_id, secret="whsec_x")  # not base64
    await hooks.emit(webhook_id)
    await start_sender(first_delay_s=0.0)
    (delivery,) = await hooks.settled()
    assert (delivery["attempts"], delivery["error"]) == (module.MAX_ATTEMPTS, "an internal error: Error")
    assert receiver.received == []


async def test_a_delivery_whose_attempts_have_no_result_fails_in_the_end(
    hooks: Hooks, receiver: Receiver, start_sender: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if each process died before it recorded one."""
    monkeypatch.setattr(module, "MAX_CLAIMS", 3)
    monkeypatch.setattr(module, "LEASE_S", 0.0)
    monkeypatch.setattr(module, "CONCURRENT_PER_WEBHOOK", 1)

    async def fail(*_arguments: Any) -> str:
        raise RuntimeError("not recorded")

    monkeypatch.setattr(WebhookSender, "_record", fail)
    await hooks.emit(await hooks.add(receiver.url()))
    await start_sender()
    (delivery,) = await hooks.settled()
    assert len(receiver.received) == 3
    assert delivery["error"] == "of 3 attempts, 0 had a result"
    assert delivery["failed_at"] is not None
    assert delivery["delivered_at"] is None


async def test_webhooks_that_fail_leave_attempts_to_the_others(
    hooks: Hooks, receiver: Receiver, start_sender: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if they are many, of many users, and have waited longer."""
    monkeypatch.setattr(module, "CONCURRENT_ATTEMPTS", 6)
    monkeypatch.setattr(module, "CONCURRENT_FAILING", 3)
    receiver.held = {"/slow"}
    for name in ("ann", "bob", "eve"):
        user = await account(hooks.database, name)
        for _ in range(3):
            await hooks.emit(await hooks.add(receiver.url("/slow"), user_id=user.user_id), 5)
    await change(hooks, webhooks, webhooks.c.url.like("%slow"), failing_since=after(-60))
    fast = await hooks.add(receiver.url("/fast"))
    await hooks.emit(fast, 10)
    await start_sender()
    await until(lambda: len(receiver.received) == 10 + 3)
    assert sum(headers["Host"] != "" for headers, _ in receiver.received) == 13
    async with asyncio.timeout(20):
        while len([row for row in await hooks.deliveries() if row["delivered_at"]]) < 10:
            await asyncio.sleep(0.01)


async def test_a_user_has_a_share_of_the_attempts(
    hooks: Hooks, receiver: Receiver, start_sender: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONCURRENT_ATTEMPTS", 6)
    monkeypatch.setattr(module, "CONCURRENT_PER_USER", 3)
    receiver.held = {"/slow"}
    slow_user = await account(hooks.database, "eve")
    for _ in range(5):
        await hooks.emit(await hooks.add(receiver.url("/slow"), user_id=slow_user.user_id), 5)
    await hooks.emit(await hooks.add(receiver.url("/fast")), 10)
    await start_sender()
    await until(lambda: len(receiver.received) == 10 + 3)


async def test_thousands_of_deliveries_wait_for_a_dead_receiver(
    hooks: Hooks, receiver: Receiver, start_sender: Any
) -> None:
    receiver.held = {"/slow"}
    await hooks.emit(await hooks.add(receiver.url("/slow")), 3_000)
    await hooks.emit(await hooks.add(receiver.url("/fast")), 50)
    await start_sender()
    await until(lambda: len(receiver.received) == 50 + module.CONCURRENT_PER_WEBHOOK)


async def test_deliveries_go_on_after_the_clock_was_set_back(
    hooks: Hooks, receiver: Receiver, start_sender: Any
) -> None:
    """A delivery that was written or claimed when the clock was ahead is not delayed until then."""
    webhook_id = await hooks.add(receiver.url())
    await hooks.emit(webhook_id)
    await change(hooks, webhook_deliveries, webhook_deliveries.c.webhook_id == webhook_id, due_at=after(40 * 86400))
    await start_sender()
    await hooks.settled()
