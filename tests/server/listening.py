"""The socket server on a port of its own, and clients that keep what they hear."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import socketio
import uvicorn
from engineio.base_client import connected_clients

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.events import Bus
from invokeclone.kit.requests import Application
from invokeclone.kit.sql.database import Database
from invokeclone.kit.sql.sqlite_database import SqliteDatabase
from invokeclone.server.sockets import Sockets
from tests.socket_io import SocketClient


@asynccontextmanager
async def serve_sockets(settings: Settings, database: Database | None = None) -> AsyncIterator[tuple[str, Bus]]:
    """Serve sockets; without accounts a database is not looked at, so there may be none."""
    bus, sockets = Bus(), Sockets(settings, database or SqliteDatabase(settings.database_path))
    app = Application()
    app.mount("/ws", sockets.app)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off", ws="websockets-sansio"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    sockets.listen(bus)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", bus
    finally:
        await sockets.close()
        server.should_exit = True
        await task


class Client:
    """A client that records events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.socket = SocketClient()
        self.socket.on("*", self._record)

    async def _record(self, name: str, data: Any) -> None:
        self.events.append((name, data))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]


@asynccontextmanager
async def connect_client(url: str, *transports: str, **options: Any) -> AsyncIterator[Client]:
    client = Client()
    await client.socket.connect(url, transports=list(transports) or None, **options)
    try:
        yield client
    finally:
        await leave(client.socket)


async def leave(socket: socketio.AsyncClient) -> None:
    """Disconnect. A client that polls breaks off its pending poll, as a browser does whose page is closed.

    Told of the end, it would wait for that poll, and so would the server's end: nobody answers it before pings time out.
    """
    engine = socket.eio
    if engine.state == "connected" and engine.current_transport == "polling":
        tasks = (engine.read_loop_task, engine.write_loop_task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        engine.state = "disconnected"
        connected_clients.remove(engine)
        await engine._reset()
    await socket.disconnect()


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
