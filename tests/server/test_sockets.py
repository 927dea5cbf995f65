"""Socket.IO over a real server: both transports, rooms, order, and who gets what."""

import asyncio

import pytest

from invokeclone.kit.events import Event
from invokeclone.kit.settings import Settings
from invokeclone.queue.events import BatchEnqueuedEvent, InvocationStartedEvent, QueueClearedEvent
from invokeclone.server.sockets import rooms_for
from tests.server.listening import connected, served, until


def batch(number: int = 1) -> Event:
    return BatchEnqueuedEvent(queue_id="default", batch_id=f"b{number}", enqueued=1, requested=1, priority=0)


@pytest.mark.parametrize("transports", [("polling",), ("websocket",), ("polling", "websocket")])
async def test_every_event_once_in_order_and_whole(settings: Settings, transports: tuple[str, ...]) -> None:
    async with served(settings) as (url, bus), connected(url, *transports) as client:
        await client.socket.emit("subscribe_queue", {"queue_id": "default"})
        await asyncio.sleep(0.1)
        sent = [batch(number) for number in range(30)]
        for event in sent:
            bus.emit(event)
        await until(lambda: len(client.heard) >= 30)
        await asyncio.sleep(0.05)
        assert client.heard == [("batch_enqueued", event.model_dump(mode="json")) for event in sent]


async def test_own_events_arrive_without_subscription_but_a_cleared_queue_needs_one(settings: Settings) -> None:
    async with (
        served(settings) as (url, bus),
        connected(url, "websocket") as client,
        connected(url, "websocket") as watcher,
    ):
        await watcher.socket.emit("subscribe_queue", {"queue_id": "default"})
        await watcher.socket.emit("subscribe_queue", {"queue_id": "other"})
        await watcher.socket.emit("unsubscribe_queue", {"queue_id": "other"})
        await asyncio.sleep(0.2)
        bus.emit(QueueClearedEvent(queue_id="other"))
        bus.emit(QueueClearedEvent(queue_id="default"))
        bus.emit(batch())
        await until(lambda: client.heard and len(watcher.heard) >= 2)
        assert client.names() == ["batch_enqueued"]
        assert watcher.names() == ["queue_cleared", "batch_enqueued"]
        assert watcher.heard[0][1]["queue_id"] == "default"


async def test_nonsense_from_a_client_does_no_harm(settings: Settings) -> None:
    async with served(settings) as (url, bus), connected(url, "websocket") as client:
        for nonsense in (None, 5, [], {}, {"queue_id": 7}, {"queue_id": "x" * 10_000}, "default"):
            await client.socket.emit("subscribe_queue", nonsense)
        await client.socket.emit("subscribe_queue")
        await client.socket.emit("no_such_event", {"a": 1})
        for number in range(200):
            await client.socket.emit("subscribe_queue", {"queue_id": f"q{number}"})
        bus.emit(batch())
        await until(lambda: client.heard)
        assert client.names() == ["batch_enqueued"]


def test_routing_by_audience() -> None:
    assert rooms_for(BatchEnqueuedEvent, {"queue_id": "q", "user_id": "u"}) == ["user:u", "admin"]
    assert rooms_for(QueueClearedEvent, {"queue_id": "q", "user_id": None}) == ["queue:q"]
    assert rooms_for(InvocationStartedEvent, {"queue_id": "q", "user_id": "u"}) == ["user:u", "admin"]
