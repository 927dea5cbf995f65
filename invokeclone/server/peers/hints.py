"""Hints for the workers of the other servers on a PostgreSQL database, by NOTIFY: wake, cancel, ids of what has changed.

The rows have the state: a hint that is lost is made up for by the workers, which read the queue and the status of their
item every second. Hints carry ids only.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol
from uuid import uuid4

import orjson
from sqlalchemy.exc import SQLAlchemyError

from invokeclone.kit import log

CHANNEL = "invokeclone_hints"
TEXT_LIMIT = 7_000
"""Bytes of a text; PostgreSQL's limit is 8000."""
RECONNECT_S = 1.0

Hint = dict[str, Any]
_log = log.get("server.peers")


class Notifications(Protocol):
    """The part of a PostgreSQL database that sends and receives texts."""

    async def notify(self, channel: str, texts: list[str]) -> None:
        """Send texts to all processes that listen."""
        ...

    async def listen(self, channel: str, receive: Callable[[str], None], connected: Callable[[], None]) -> None:
        """Pass received texts on until the connection is lost."""
        ...


class PeerHints:
    """Sends the hints of this server and passes those of others to `apply`."""

    def __init__(self, notifications: Notifications, apply: Callable[[Hint], None]) -> None:
        """Create without connecting."""
        self._notifications = notifications
        self._apply = apply
        self._sender_id = uuid4().hex
        self._unsent: list[Hint] = []
        self._has_unsent = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_connected = True

    async def start(self) -> None:
        """Listen and send from now on."""
        self._tasks = [
            asyncio.create_task(self._listen(), name="hints received"),
            asyncio.create_task(self._send_all(), name="hints sent"),
        ]

    async def stop(self) -> None:
        """Stop; hints that are not sent yet are dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def share(self, hint: Hint) -> None:
        """Send a hint to the other servers soon. Never blocks."""
        if hint not in self._unsent[-1:]:  # many batches need one wake
            self._unsent.append(hint)
        self._has_unsent.set()

    async def _send_all(self) -> None:
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            hints, self._unsent = self._unsent, []
            try:
                await self._notifications.notify(CHANNEL, list(pack(self._sender_id, hints)))
            except (SQLAlchemyError, OSError) as error:
                _log.warning("cannot send hints to other servers: %s", error, extra={"action": "send_hints"})

    async def _listen(self) -> None:
        while True:
            try:
                await self._notifications.listen(CHANNEL, self._receive, self._on_connect)
            except (SQLAlchemyError, OSError) as error:
                if self._is_connected:
                    _log.warning("no hints of other servers: %s", error, extra={"action": "receive_hints"})
                self._is_connected = False
            await asyncio.sleep(RECONNECT_S)

    def _on_connect(self) -> None:
        self._is_connected = True
        self._apply({"kind": "wake"})  # a hint may have been lost

    def _receive(self, text: str) -> None:
        with contextlib.suppress(orjson.JSONDecodeError):
            match orjson.loads(text):
                case {"from": str(sender), "hints": list(hints)} if sender != self._sender_id:
                    for hint in hints:
                        if isinstance(hint, dict):
                            self._apply(hint)


def pack(sender_id: str, hints: Iterable[Hint]) -> Iterator[str]:
    """Yield texts with all hints, each below TEXT_LIMIT; a hint with a long list of ids is split."""
    texts: list[bytes] = []
    for hint in hints:
        for part in _split(hint):
            encoded = orjson.dumps(part)
            if texts and sum(map(len, texts)) + len(texts) + len(encoded) > TEXT_LIMIT:
                yield _text(sender_id, texts)
                texts = []
            texts.append(encoded)
    if texts:
        yield _text(sender_id, texts)


def _text(sender_id: str, texts: list[bytes]) -> str:
    return f'{{"from":"{sender_id}","hints":[{b",".join(texts).decode()}]}}'


def _split(hint: Hint) -> Iterator[Hint]:
    """Yield hints that fit into a text and have together the same ids."""
    longest = max(
        (name for name in hint if isinstance(hint[name], list)), key=lambda name: len(hint[name]), default=None
    )
    middle = 0 if longest is None else len(hint[longest]) // 2
    if longest is None or middle == 0 or len(orjson.dumps(hint)) <= TEXT_LIMIT:
        yield hint
        return
    for part in (hint[longest][:middle], hint[longest][middle:]):
        yield from _split({**hint, longest: part})
