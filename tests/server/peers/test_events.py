"""Events between servers over a real Redis server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from invokeclone.kit.events import Bus, Event
from invokeclone.queue.events import BatchEnqueuedEvent, QueueClearedEvent
from invokeclone.server.peers import events as peer_events
from invokeclone.server.peers.events import EventsNotUsable, PeerEvents
from invokeclone.utilities.events import LLMTaskProgressEvent
from tests.redis_server import RedisServer
from tests.tcp_proxy import Proxy


class Peer:
    """A bus connected to those of the other servers, and what its listeners got."""

    def __init__(self, url: str, secret: str = "one database") -> None:
        self.bus = Bus()
        self.events = PeerEvents(url, secret, self.bus)
        self.received: list[tuple[type[Event], dict[str, Any]]] = []
        self.own: list[type[Event]] = []
        self.bus.subscribe(lambda kind, payload: self.received.append((kind, payload)))
        self.bus.subscribe(lambda kind, _payload: self.own.append(kind), only_own=True)

    def kinds(self) -> list[type[Event]]:
        return [kind for kind, _ in self.received]


Start = Callable[[Peer], Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def act(peer: Peer) -> Peer:
            await peer.events.start()
            stack.push_async_callback(peer.events.stop)
            await asyncio.wait_for(peer.events.is_subscribed.wait(), 30)
            return peer

        yield act


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def enqueued(number: int) -> BatchEnqueuedEvent:
    return BatchEnqueuedEvent(queue_id="default", batch_id=str(number), enqueued=1, requested=1, priority=0)


async def test_events_reach_every_other_server_once_and_in_order(redis_server: RedisServer, start: Start) -> None:
    first, second, third = [await start(Peer(redis_server.url)) for _ in range(3)]
    stranger = await start(Peer(redis_server.url, "another database"))
    for number in range(250):
        first.bus.emit(enqueued(number))
    second.bus.emit(QueueClearedEvent(queue_id="default"))
    await until(lambda: len(second.received) == len(third.received) == 251)
    for peer in (second, third):
        batches = [payload["batch_id"] for kind, payload in peer.received if kind is BatchEnqueuedEvent]
        assert batches == [str(number) for number in range(250)]
    assert first.received[0] == second.received[second.kinds().index(BatchEnqueuedEvent)]
    await until(lambda: QueueClearedEvent in first.kinds())
    assert len(first.received) == 251
    assert first.own == [BatchEnqueuedEvent] * 250
    assert third.own == []
    assert stranger.received == []


async def test_an_event_that_cannot_be_handled_stops_no_other(
    redis_server: RedisServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await start(Peer(redis_server.url)), await start(Peer(redis_server.url))
    publish = second.bus.publish

    def fail_once(kind: type[Event], payload: dict[str, Any], **options: Any) -> None:
        if payload.get("batch_id") == "1":
            raise ValueError("not handled")
        publish(kind, payload, **options)

    monkeypatch.setattr(second.bus, "publish", fail_once)
    for number in range(50):  # in one message
        first.bus.emit(enqueued(number))
    first.bus.emit(QueueClearedEvent(queue_id="default"))
    for number in range(50, 250):
        first.bus.emit(enqueued(number))
    await until(lambda: second.received and second.received[-1][1].get("batch_id") == "249")
    assert len(second.received) == 250


async def test_progress_is_dropped_before_other_events(redis_server: RedisServer, start: Start) -> None:
    first, second = await start(Peer(redis_server.url)), await start(Peer(redis_server.url))
    for number in range(300):  # without a pause, so that none is sent meanwhile
        first.bus.emit(LLMTaskProgressEvent(task_id=str(number), phase="generating", message=""))
    first.bus.emit(QueueClearedEvent(queue_id="default"))
    await until(lambda: QueueClearedEvent in second.kinds())
    assert len(second.received) == 201


async def test_events_go_on_after_redis_was_restarted(
    redis_server: RedisServer, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await start(Peer(redis_server.url)), await start(Peer(redis_server.url))
    redis_server.stop()
    first.bus.emit(enqueued(1))
    await until(lambda: not first.events.is_subscribed.is_set() and not second.events.is_subscribed.is_set())
    redis_server.start()
    await until(lambda: first.events.is_subscribed.is_set() and second.events.is_subscribed.is_set())
    first.bus.emit(QueueClearedEvent(queue_id="default"))
    await until(lambda: QueueClearedEvent in second.kinds())
    assert caplog.text.count("clients get events of this server only") == 2, "one line per server"
    assert "clients of other servers get no events of this one" in caplog.text


async def test_connections_that_fall_silent_are_replaced(
    redis_server: RedisServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as after a crash of the machine between, which closes no connection; nothing that is sent then is lost."""
    monkeypatch.setattr(peer_events, "CHECK_S", 0.2)
    async with Proxy(redis_server.socket).open() as proxy:
        first, second = await start(Peer(f"redis://127.0.0.1:{proxy.port}")), await start(Peer(redis_server.url))
        first.bus.emit(enqueued(0))
        await until(lambda: second.received)
        proxy.silence()
        first.bus.emit(enqueued(1))
        await until(lambda: len(second.received) == 2)
        async with asyncio.timeout(30):
            while QueueClearedEvent not in first.kinds():
                second.bus.emit(QueueClearedEvent(queue_id="default"))
                await asyncio.sleep(0.05)
        proxy.silence()
        first.bus.emit(enqueued(2))
        await until(lambda: len(second.received) == 3 + second.own.count(QueueClearedEvent))
        await first.events.stop()  # which closes its connections


async def test_a_message_that_was_sent_twice_is_delivered_once(redis_server: RedisServer, start: Start) -> None:
    first, second = await start(Peer(redis_server.url)), await start(Peer(redis_server.url))
    publish = first.events._publisher.publish

    async def lose_the_answer(*arguments: Any) -> None:
        await publish(*arguments)
        first.events._publisher.publish = publish  # type: ignore[method-assign]
        raise ConnectionResetError

    first.events._publisher.publish = lose_the_answer  # type: ignore[method-assign]
    first.bus.emit(enqueued(1))
    await until(lambda: second.received)
    first.bus.emit(QueueClearedEvent(queue_id="default"))
    await until(lambda: QueueClearedEvent in second.kinds())
    assert second.kinds() == [BatchEnqueuedEvent, QueueClearedEvent]


async def test_the_last_events_of_a_server_are_sent_before_it_stops(redis_server: RedisServer, start: Start) -> None:
    first, second = await start(Peer(redis_server.url)), await start(Peer(redis_server.url))
    for number in range(150):
        first.bus.emit(enqueued(number))
    await first.events.stop()
    await until(lambda: len(second.received) == 150)


async def test_a_text_that_is_no_address_is_refused() -> None:
    with pytest.raises(EventsNotUsable, match="redis://HOST:PORT"):
        PeerEvents("localhost", "secret", Bus())
