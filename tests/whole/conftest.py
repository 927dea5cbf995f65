"""A real server with its real workers, and a client of its sockets."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server_process import PATIENCE, Server, serving
from tests.socket_io import SocketClient


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    servers: list[Server] = []

    def make() -> Server:
        servers.append(Server(tmp_path / f"root{len(servers)}"))
        return servers[-1]

    yield make
    for server in servers:
        server.client.close()
        if server.process is not None and server.process.poll() is None:
            workers = server.workers()
            server.stop()
            assert [worker for worker in workers if worker.is_running() and worker.status() != "zombie"] == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a file that leave it as they found it."""
    with serving(tmp_path_factory.mktemp("shared") / "root") as running:
        yield running


class EventListener:
    """A socket.io client that records every event in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.client = SocketClient()
        self.client.on("*", self._record)

    async def _record(self, name: str, payload: dict[str, Any]) -> None:
        self.events.append((name, payload))

    async def until(self, name: str, **fields: Any) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while True:
                for event_name, payload in self.events:
                    if event_name == name and fields.items() <= payload.items():
                        return payload
                await asyncio.sleep(0.02)

    def of(self, item_id: int) -> list[tuple[str, dict[str, Any]]]:
        return [(name, payload) for name, payload in self.events if payload.get("item_id") == item_id]


@pytest.fixture
async def listener(server: Server) -> AsyncIterator[EventListener]:
    listener = EventListener()
    await listener.client.connect(server.url)
    await listener.client.subscribe()
    yield listener
    await listener.client.disconnect()


def decode_data_url(data_url: str) -> bytes:
    head, _, data = data_url.partition(",")
    assert head == "data:image/jpeg;base64"
    return base64.b64decode(data)
