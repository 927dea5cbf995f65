"""Hints for the workers of the other servers on a PostgreSQL database, by NOTIFY: wake, cancel, ids of what has changed.

The rows have the state: a hint that is lost is made up for by the workers, which read the queue and the status of their
item every second. Hints carry ids only.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol
from uuid import uuid4

import orjson
from sqlalchemy.exc import SQLAlchemyError

from invokeclone.kit import log
from invokeclone.kit.process.periodic import PeriodicTask

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
        expected = (SQLAlchemyError, OSError)
        self._receiving = PeriodicTask(
            "receive_hints",
            self._listen,
            RECONNECT_S,
            failure="no hints of other servers",
            logger=_log,
            expected=expected,
        )
        self._sending = PeriodicTask(
            "send_hints", self._send, None, failure="cannot send hints to other servers", logger=_log, expected=expected
        )

    async def start(self) -> None:
        """Listen and send from now on."""
        self._receiving.start()
        self._sending.start()

    async def stop(self) -> None:
        """Stop; hints that are not sent yet are dropped."""
        await self._receiving.stop()
        await self._sending.stop()

    def share(self, hint: Hint) -> None:
        """Send a hint to the other servers soon. Never blocks."""
        if hint not in self._unsent[-1:]:  # many batches need one wake
            self._unsent.append(hint)
        self._sending.wake()

    async def _send(self) -> None:
        hints, self._unsent = self._unsent, []
        await self._notifications.notify(CHANNEL, list(pack(self._sender_id, hints)))

    async def _listen(self) -> None:
        await self._notifications.listen(CHANNEL, self._receive, self._on_connect)

    def _on_connect(self) -> None:
        self._receiving.note_success()
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
