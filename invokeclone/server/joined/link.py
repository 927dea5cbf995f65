"""The websocket of a joined worker as a link of the supervisor."""

import asyncio
import collections
import contextlib

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from invokeclone.kit import log
from invokeclone.server.http import websocket_protocol
from invokeclone.server.joined.protocol import FRAME_LIMIT, frames_of, select_shared_settings
from invokeclone.server.supervision.link import UNREAD_LIMIT, Backlog, Message

GOING_AWAY = 1012
TRY_AGAIN_LATER = 1013
STALL_S = 30.0
"""Seconds in which an agent must read a frame."""
CLOSE_S = 1.0
"""Seconds that an agent has to answer the end of its connection, which is aborted then."""
GONE = (WebSocketDisconnect, RuntimeError, OSError)
"""Errors of sending to an agent that is gone."""

_log = log.get("server.joined")


class JoinedLink:
    """Sends messages to the agent of a joined worker, in order, in a task."""

    def __init__(self, socket: WebSocket, pid: int) -> None:
        """Send over `socket`, which is accepted; `pid` is the agent's process."""
        self._socket = socket
        self._pid = pid
        self._waiting: collections.deque[tuple[bytes, asyncio.Event]] = collections.deque()
        """Unsent messages; the first one is in transit. The events are set when they are sent, or will not be."""
        self._unsent = 0
        self._backlog = Backlog()
        self._changed = asyncio.Event()
        self._code: int | None = None
        self.ended = asyncio.Event()
        """Set when nothing more is sent, and nothing of the agent must be handled any more."""
        self._sender = asyncio.create_task(self._send_all(), name="joined worker frames")

    @property
    def pid(self) -> int:
        """The process id of the agent, on its machine."""
        return self._pid

    def send(self, message: Message) -> None:
        """Queue a message. Settings are sent without those of this machine. An agent that no longer reads is cut off."""
        if isinstance(message.get("settings"), dict):
            message = {**message, "settings": select_shared_settings(message["settings"])}
        self._queue(orjson.dumps(message), is_result=False)
        if self._backlog.size > UNREAD_LIMIT:
            self._cut_off()

    async def deliver(self, result: bytes) -> None:
        """Send the result of a call; return when it is sent or the connection has ended."""
        await self._queue(result, is_result=True).wait()

    def _queue(self, line: bytes, *, is_result: bool) -> asyncio.Event:
        sent = asyncio.Event()
        if self._code is not None:
            sent.set()
            return sent
        self._waiting.append((line, sent))
        self._unsent += len(line)
        self._backlog.add(len(line), is_result=is_result)
        self._changed.set()
        return sent

    def kill(self) -> None:
        """Let the agent kill and replace its worker process."""
        self.send({"kind": "kill"})

    def close(self, code: int = GOING_AWAY) -> None:
        """Close the connection after the queued messages."""
        if self._code is None:
            self._code = code
            self._changed.set()

    def abort(self, code: int) -> None:
        """End the connection at once; the agent gets the code unless it has not read earlier messages."""
        if self.ended.is_set():
            return
        does_read = not self._waiting
        self._code = code
        self._sender.cancel()
        self._finish()
        if does_read:
            self._sender = asyncio.create_task(self._send_close(code), name="joined worker close")
        else:
            websocket_protocol.abort(self._socket)

    async def end(self, grace_s: float) -> None:
        """Disconnect, within `grace_s` seconds; the worker goes on and joins again."""
        self.close()
        await asyncio.wait({self._sender}, timeout=grace_s)
        self._sender.cancel()
        self._finish()
        asyncio.get_running_loop().call_later(CLOSE_S, websocket_protocol.abort, self._socket)

    async def _send_all(self) -> None:
        try:
            while self._code is None or self._waiting:
                while self._waiting:
                    await self._send_first()
                if self._code is None:
                    self._changed.clear()
                    await self._changed.wait()
            await self._send_close(self._code or GOING_AWAY)
        except TimeoutError:
            self._cut_off()
        except GONE:
            pass  # the reading side notices, too
        finally:
            self._code = self._code or GOING_AWAY
            self._finish()

    async def _send_first(self) -> None:
        line, sent = self._waiting[0]
        for frame in frames_of(line, FRAME_LIMIT):
            async with asyncio.timeout(STALL_S):
                await self._socket.send_text(frame)
        self._waiting.popleft()
        self._unsent -= len(line)
        self._backlog.trim(self._unsent)
        sent.set()

    async def _send_close(self, code: int) -> None:
        with contextlib.suppress(TimeoutError, *GONE):
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close(code)

    def _cut_off(self) -> None:
        _log.error("a joined worker does not read its messages: closing its connection")
        self.abort(TRY_AGAIN_LATER)

    def _finish(self) -> None:
        for _, sent in self._waiting:
            sent.set()
        self._waiting.clear()
        self.ended.set()
