"""Socket.IO over a real server: both transports, rooms, order, and who gets what."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Event
from invokeclone.queue.events import BatchEnqueuedEvent, InvocationStartedEvent, QueueClearedEvent
from invokeclone.server.sockets import rooms_for
from tests.server.listening import connect_client, serve_sockets, until


def batch(number: int = 1) -> Event:
    return BatchEnqueuedEvent(queue_id="default", batch_id=f"b{number}", enqueued=1, requested=1, priority=0)


@pytest.mark.parametrize("transports", [("polling",), ("websocket",), ("polling", "websocket")])
async def test_events_are_delivered_once_in_order_and_complete(settings: Settings, transports: tuple[str, ...]) -> None:
    async with serve_sockets(settings) as (url, bus), connect_client(url, *transports) as client:
        await client.socket.subscribe()
        sent = [batch(number) for number in range(30)]
        for event in sent:
            bus.emit(event)
        await until(lambda: len(client.events) >= 30)
        await asyncio.sleep(0.05)
        assert client.events == [("batch_enqueued", event.model_dump(mode="json")) for event in sent]


async def test_own_events_arrive_without_subscription_but_a_cleared_queue_needs_one(settings: Settings) -> None:
    async with (
        serve_sockets(settings) as (url, bus),
        connect_client(url, "websocket") as client,
        connect_client(url, "websocket") as watcher,
    ):
        await watcher.socket.subscribe()
        await watcher.socket.subscribe("other")
        await watcher.socket.unsubscribe("other")
        bus.emit(QueueClearedEvent(queue_id="other"))
        bus.emit(QueueClearedEvent(queue_id="default"))
        bus.emit(batch())
        await until(lambda: client.events and len(watcher.events) >= 2)
        assert client.names() == ["batch_enqueued"]
        assert watcher.names() == ["queue_cleared", "batch_enqueued"]
        assert watcher.events[0][1]["queue_id"] == "default"


async def test_malformed_client_messages_are_ignored(settings: Settings) -> None:
    async with serve_sockets(settings) as (url, bus), connect_client(url, "websocket") as client:
        for nonsense in (None, 5, [], {}, {"queue_id": 7}, {"queue_id": "x" * 10_000}, "default"):
            await client.socket.emit("subscribe_queue", nonsense)
        await client.socket.emit("subscribe_queue")
        await client.socket.emit("no_such_event", {"a": 1})
        for number in range(200):
            await client.socket.emit("subscribe_queue", {"queue_id": f"q{number}"})
        bus.emit(batch())
        await until(lambda: client.events)
        assert client.names() == ["batch_enqueued"]


def test_routing_by_audience() -> None:
    assert rooms_for(BatchEnqueuedEvent, {"queue_id": "q", "user_id": "u"}) == ["user:u", "admin"]
    assert rooms_for(QueueClearedEvent, {"queue_id": "q", "user_id": None}) == ["queue:q"]
    assert rooms_for(InvocationStartedEvent, {"queue_id": "q", "user_id": "u"}) == ["user:u", "admin"]


def _polling(client: httpx.AsyncClient, url: str) -> Any:
    """Return what posts to a new session that nobody polls."""

    async def post(content: bytes, sid: str | None = None) -> httpx.Response:
        address = f"{url}/ws/socket.io/?EIO=4&transport=polling"
        if sid is None:
            sid = json.loads((await client.get(address)).text[1:])["sid"]
        return await client.post(f"{address}&sid={sid}", content=content, headers={"content-type": "text/plain"})

    return post


@pytest.mark.parametrize("content", [b"4" * 200_000, b"0{}", b"7", b"x", b"\xff\xfe", b"\x1e".join([b"3"] * 40), b""])
async def test_a_post_that_cannot_be_read_is_answered(
    settings: Settings, logged: list[logging.LogRecord], caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """Also when nobody polls what the server would like to say before it closes."""
    async with serve_sockets(settings) as (url, bus), httpx.AsyncClient(timeout=20) as client:
        answer = await _polling(client, url)(content)
        assert answer.status_code == (
            400 if len(content) > settings.limits.socket_message_kib * 1024 or content == b"0{}" else 200
        )
        async with connect_client(url, "websocket") as listener:
            bus.emit(batch())
            await until(lambda: listener.events)
    records = [*logged, *caplog.records]
    assert [record.getMessage() for record in records if record.levelno >= logging.WARNING] == []
