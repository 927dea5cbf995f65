"""The websocket of a joined worker as a link of the supervisor."""

import asyncio
import collections

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

from invokeclone.kit import log
from invokeclone.server.joined.protocol import MESSAGE_LIMIT, select_shared_settings
from invokeclone.server.supervision.link import Message

GOING_AWAY = 1012
_log = log.get("server.joined")


class JoinedLink:
    """Sends messages to the agent of a joined worker, in order, in a task; sending never blocks."""

    def __init__(self, socket: WebSocket, pid: int) -> None:
        """Send over `socket`, which is accepted; `pid` is the agent's process."""
        self._socket = socket
        self._pid = pid
        self._frames: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._code: int | None = None
        self._sender = asyncio.create_task(self._send_all(), name="joined worker frames")

    @property
    def pid(self) -> int:
        """The process id of the agent, on its machine."""
        return self._pid

    def send(self, message: Message) -> None:
        """Queue a message. Settings are sent without those of this machine. An agent that no longer reads is cut off."""
        if self._code is not None:
            return
        if isinstance(message.get("settings"), dict):
            message = {**message, "settings": select_shared_settings(message["settings"])}
        frame = orjson.dumps(message)
        if self._size + len(frame) > MESSAGE_LIMIT:
            _log.error("a joined worker does not read its messages: closing its connection")
            self.close(1013)
            return
        self._frames.append(frame)
        self._size += len(frame)
        self._changed.set()

    def kill(self) -> None:
        """Let the agent kill and replace its worker process."""
        self.send({"kind": "kill"})

    def close(self, code: int = GOING_AWAY) -> None:
        """Close the connection after the queued messages."""
        if self._code is None:
            self._code = code
            self._changed.set()

    async def end(self, grace_s: float) -> None:
        """Disconnect, within `grace_s` seconds; the worker goes on and joins again."""
        self.close()
        await asyncio.wait({self._sender}, timeout=grace_s)
        self._sender.cancel()

    async def _send_all(self) -> None:
        try:
            while True:
                while self._frames:
                    frame = self._frames.popleft()
                    await self._socket.send_text(frame.decode())
                    self._size -= len(frame)
                if self._code is not None:
                    await self._socket.close(self._code)
                    return
                self._changed.clear()
                await self._changed.wait()
        except (WebSocketDisconnect, RuntimeError, OSError):
            self._code = self._code or GOING_AWAY  # the reading side notices, too
            self._frames.clear()
