"""Events of the other servers on a PostgreSQL database, by publish and subscribe of Redis or Valkey.

Each server publishes its own events as JSON and passes those of others to its bus, whose listeners deliver them: the
socket.io server to its own clients, the compatibility APIs to theirs. The decision: docs/decisions/0017.
Nothing is stored in Redis. While it cannot be reached, clients get the events of their own server only.
"""

import asyncio
import collections
import contextlib
import functools
import hashlib
import hmac
import itertools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson

from invokeclone.kit import log
from invokeclone.kit.errors import Conflict
from invokeclone.kit.events import EVENTS, Bus, Event
from invokeclone.kit.process.periodic import PeriodicTask

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

CONNECT_TIMEOUT_S = 5.0
CHECK_S = 5.0
"""Seconds without an event after which a connection is checked, and which the answer may take: a connection that is open
on this side only is replaced after twice that."""
RECONNECT_S = 1.0
LAST_EVENTS_S = 1.0
PROGRESS_LIMIT = 200
"""Number of unsent events above which progress events are dropped."""
BACKLOG_LIMIT = 10_000
"""Number of unsent events above which all others are dropped."""
EVENTS_PER_MESSAGE = 100

_log = log.get("server.peers")


class EventsNotUsable(Conflict):
    """The setting `events_url` cannot be used; the text says what to do."""


class PeerEvents:
    """Exchanges events with the servers that use the same database and the same Redis."""

    def __init__(self, url: str, secret: str, bus: Bus) -> None:
        """Create without connecting. `secret`, of the database, names the channel. Raises EventsNotUsable."""
        try:
            import redis
            from redis import asyncio as redis_asyncio
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ModuleNotFoundError as error:
            if error.name != "redis":
                raise
            raise EventsNotUsable("events_url needs the library redis: pip install 'invokeclone[redis]'") from error
        options: dict[str, Any] = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": CHECK_S}
        if not url.startswith("unix:"):
            options["socket_keepalive"] = True
        try:  # both reconnect here, and not in the library
            self._publisher: Redis = redis_asyncio.from_url(url, retry=Retry(NoBackoff(), 0), **options)
            self._subscriber: Redis = redis_asyncio.from_url(url, retry=Retry(NoBackoff(), 0), **options)
            self._publisher.connection_pool.make_connection()  # type: ignore[no-untyped-call]  # options of the address are not checked before
        except (ValueError, TypeError) as error:
            raise EventsNotUsable(
                f"events_url is not the address of a Redis or Valkey server ({error}): write redis://HOST:PORT, "
                "rediss:// for TLS"
            ) from error
        self._errors = (redis.RedisError, OSError)
        self._bus = bus
        self._channel = f"invokeclone:{hmac.new(secret.encode(), b'events', hashlib.sha256).hexdigest()[:32]}"
        self._sender_id = uuid4().hex
        self._numbers = itertools.count(1)
        self._last_numbers: dict[str, int] = {}
        """Number of the last message of each other server: a message that was sent twice is passed on once."""
        self._unsent: collections.deque[bytes] = collections.deque()
        self._is_sent = asyncio.Event()
        self._is_sent.set()
        self._sending = PeriodicTask(
            "send_events",
            self._send,
            CHECK_S,
            failure="Redis (events_url) cannot be used: clients of other servers get no events of this one",
            logger=_log,
            expected=self._errors,
        )
        self._receiving = PeriodicTask(
            "receive_events",
            self._receive,
            RECONNECT_S,
            failure="Redis (events_url) cannot be used: clients get events of this server only until it can",
            logger=_log,
            expected=self._errors,
        )
        self.is_subscribed = asyncio.Event()
        """Set while events of other servers arrive."""

    async def start(self) -> None:
        """Publish and receive from now on, as soon as Redis can be reached; wait for that for a moment."""
        self._bus.subscribe(self._enqueue, only_own=True)
        self._receiving.start()
        self._sending.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.is_subscribed.wait(), CONNECT_TIMEOUT_S)

    async def stop(self) -> None:
        """Stop and disconnect; the last events, of the workers that have just been stopped, are sent first."""
        self._bus.unsubscribe(self._enqueue)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_sent.wait(), LAST_EVENTS_S)
        await self._receiving.stop()
        await self._sending.stop()
        for client in (self._publisher, self._subscriber):
            with contextlib.suppress(*self._errors):
                await client.aclose()

    def _enqueue(self, kind: type[Event], payload: dict[str, Any]) -> None:
        backlog = len(self._unsent)
        if backlog >= BACKLOG_LIMIT or (backlog >= PROGRESS_LIMIT and kind.name.endswith("_progress")):
            return
        self._unsent.append(orjson.dumps([kind.name, payload]))
        self._is_sent.clear()
        self._sending.wake()

    async def _send(self) -> None:
        """Publish in order, several events at once while the last ones are on their way.

        Events that cannot be sent are dropped; raises the last error after the others.
        """
        failure: BaseException | None = None
        if not self._unsent:
            await self._try_twice(self._publisher.ping)
        while self._unsent:
            count = min(len(self._unsent), EVENTS_PER_MESSAGE)
            events = b",".join(self._unsent.popleft() for _ in range(count))
            number, sender = next(self._numbers), self._sender_id.encode()
            message = b'{"from":"%s","number":%d,"events":[%s]}' % (sender, number, events)
            try:
                await self._try_twice(functools.partial(self._publisher.publish, self._channel, message))
            except self._errors as error:
                failure = error
        self._is_sent.set()
        if failure is not None:
            raise failure

    async def _try_twice(self, request: Callable[[], Awaitable[Any]]) -> None:
        """Send a request, again on a new connection if the present one was lost in the meantime."""
        try:
            await request()
        except self._errors:
            await request()

    async def _receive(self) -> None:
        pubsub = self._subscriber.pubsub()
        try:
            await pubsub.subscribe(self._channel)
            await self._read(pubsub)
        finally:
            self.is_subscribed.clear()
            with contextlib.suppress(*self._errors):
                await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _read(self, pubsub: "PubSub") -> None:
        """Deliver messages until the connection is lost; raises its error, TimeoutError if it does not answer."""
        is_checking = False
        while True:
            message = await pubsub.get_message(timeout=CHECK_S)
            if message is None and is_checking:
                raise TimeoutError("the connection does not answer any more")
            is_checking = message is None
            if message is None:
                await pubsub.ping()
            elif message["type"] == "subscribe":
                self._receiving.note_success()
                self.is_subscribed.set()
            elif message["type"] == "message":
                self._deliver(message["data"])

    def _deliver(self, data: bytes) -> None:
        """Pass the events of another server to the listeners of this one."""
        try:
            message = orjson.loads(data)
            sender, number, events = message["from"], message["number"], list(message["events"])
            if sender == self._sender_id or number <= self._last_numbers.get(sender, 0):
                return
            self._last_numbers[sender] = number
        except Exception:  # noqa: BLE001  (a message that cannot be read must not stop the others)
            _log.exception("a message of another server cannot be read")
            return
        for event in events:
            self._deliver_event(event)

    def _deliver_event(self, event: Any) -> None:
        try:
            name, payload = event
            kind = EVENTS.get(name)
            if kind is not None:  # the other server may have a newer version
                self._bus.publish(kind, payload, is_local=False)
        except Exception:  # noqa: BLE001  (an event that cannot be handled must not stop the others)
            _log.exception("an event of another server cannot be handled")
