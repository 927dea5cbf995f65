"""A receiver of webhooks on this machine, senders, and webhooks in the database."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import select

from invokeclone.kit import times
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.database import Database, open_database
from invokeclone.tables import webhook_deliveries, webhooks
from invokeclone.webhooks import outbox, signing, store
from invokeclone.webhooks.schemas import WebhookRequest
from invokeclone.webhooks.sender import WebhookSender


@dataclass
class Receiver:
    """A server that answers POST requests and keeps them."""

    port: int = 0
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Answered first, one after the other; then 200."""
    headers: dict[str, str] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    """Paths that get no answer until `go`."""
    go: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.received]

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for headers, _ in self.received]

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append((dict(request.headers), body))
        if request.path in self.held:
            await self.go.wait()
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers=self.headers, text="x" * 100_000)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until a condition that lasts is met."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    fake = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    fake.port = server.sockets[0].getsockname()[1]
    yield fake
    fake.go.set()
    await runner.cleanup()


@pytest.fixture
def resources(resources: Resources) -> Resources:
    """Let webhooks be on this machine."""
    return replace(resources, settings=resources.settings.model_copy(update={"allow_private_webhook_urls": True}))


@pytest.fixture
async def start_sender(resources: Resources) -> AsyncIterator[Callable[..., Any]]:
    """Start senders, each with a database of its own as another server has."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> WebhookSender:
            database = open_database(resources.settings)
            stack.push_async_callback(database.close)
            sender = WebhookSender(replace(resources, database=database), **{"poll_s": 0.02, **options})
            await sender.start()
            stack.push_async_callback(sender.stop)
            return sender

        yield start


class Hooks:
    """Webhooks and deliveries in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def add(self, url: str, *events: str, user_id: str = "system") -> str:
        request = WebhookRequest(url=url, events=events or ("batch_done", "item_failed"))  # type: ignore[arg-type]
        return await self.database.transact(
            lambda connection: store.add(connection, user_id, request, signing.new_secret())
        )

    async def emit(self, webhook_id: str, number: int = 1) -> None:
        """Write deliveries of an event, with their number in it."""

        async def write(connection: Any) -> None:
            for index in range(number):
                await outbox.add(connection, [webhook_id], "batch_done", {"number": index})

        await self.database.transact(write)

    async def row(self, webhook_id: str) -> Any:
        async with self.database.read() as connection:
            query = select(webhooks).where(webhooks.c.webhook_id == webhook_id)
            return (await connection.execute(query)).mappings().one()

    async def deliveries(self) -> list[Any]:
        async with self.database.read() as connection:
            query = select(webhook_deliveries).order_by(webhook_deliveries.c.created_at)
            return list((await connection.execute(query)).mappings())

    async def failed_once(self, webhook_id: str) -> None:
        """Wait until an attempt at a webhook has failed."""
        async with asyncio.timeout(20):
            while (await self.row(webhook_id))["failing_since"] is None:
                await asyncio.sleep(0.01)

    async def settled(self) -> list[Any]:
        """Wait until nothing is due any more, and return the deliveries."""
        async with asyncio.timeout(20):
            while await store.count_pending(self.database):
                await asyncio.sleep(0.01)
        return await self.deliveries()


@pytest.fixture
def hooks(database: Database) -> Hooks:
    return Hooks(database)


class Clock:
    """The clock of the machine, some seconds ahead."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self, zone: tzinfo | None = None) -> datetime:
        return datetime.now(zone) + timedelta(seconds=self.ahead_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(times, "datetime", clock)
    return clock
