"""socket.io clients for tests, which wait longer than a busy machine takes."""

from typing import Any

import socketio

from tests.server_process import PATIENCE


class SocketClient(socketio.AsyncClient):
    """A client that does not reconnect, of the path that the server uses."""

    def __init__(self) -> None:
        super().__init__(reconnection=False, request_timeout=PATIENCE)

    async def connect(self, url: str, **options: Any) -> None:
        """Connect, and wait until the server has accepted or refused. Raises ConnectionError if it refuses."""
        await super().connect(url, socketio_path="/ws/socket.io", wait_timeout=PATIENCE, **options)

    async def subscribe(self, queue_id: str = "default") -> None:
        """Subscribe to the events of a queue; returns when the server has done it."""
        await self.call("subscribe_queue", {"queue_id": queue_id}, timeout=PATIENCE)

    async def unsubscribe(self, queue_id: str = "default") -> None:
        """End a subscription; returns when the server has done it."""
        await self.call("unsubscribe_queue", {"queue_id": queue_id}, timeout=PATIENCE)
