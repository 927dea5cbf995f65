"""The server's events as a page of the UI receives them: unlike what it draws of them, they can be examined afterwards."""

import asyncio
import json
from typing import Any

from playwright.async_api import Page, WebSocket


class Events:
    """Records the events that arrive through the web socket of a page, in order."""

    def __init__(self, page: Page) -> None:
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.connected = asyncio.Event()
        """The socket has replaced the requests that socket.io begins with: all later events are recorded."""
        self._arrived = asyncio.Event()
        page.on("websocket", self._listen)

    def _listen(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: self.connected.set() if frame == "5" else None)
        socket.on("framereceived", self._record)

    def _record(self, frame: str | bytes) -> None:
        if isinstance(frame, str) and frame.startswith("42"):
            name, payload = json.loads(frame[2:])
            self.received.append((name, payload))
            self._arrived.set()

    def previews(self, item_id: int) -> list[dict[str, Any]]:
        """Return the images of a run's progress that have arrived."""
        progress = [payload for name, payload in self.received if name == "invocation_progress"]
        return [event["image"] for event in progress if event["item_id"] == item_id and event["image"]]

    async def wait_for_preview(self, item_id: int) -> dict[str, Any]:
        """Wait for an image of a run's progress, during the run or after it."""
        while not self.previews(item_id):
            self._arrived.clear()
            await self._arrived.wait()
        return self.previews(item_id)[-1]
