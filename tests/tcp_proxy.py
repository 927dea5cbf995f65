"""A network between two programs that can be cut, and whose connections can fall silent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path


class Proxy:
    """A TCP proxy with an address that stays; `target` is the port or Unix socket where it leads, None while the network is cut."""

    def __init__(self, target: int | Path | None = None) -> None:
        self.target = target
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._silent: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.cut()
            server.close()
            await server.wait_closed()

    def cut(self) -> None:
        """Close every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    def silence(self) -> None:
        """Forward nothing more over the present connections, which stay open; new ones work."""
        self._silent |= self._writers

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, Path):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection("127.0.0.1", self.target)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.target is None:
                return
            with contextlib.suppress(OSError):
                to_reader, to_writer = await self._connect()
                self._writers.add(to_writer)
                try:
                    await asyncio.gather(self._pump(reader, to_writer), self._pump(to_reader, writer))
                finally:
                    to_writer.transport.abort()
                    self._writers.discard(to_writer)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if writer not in self._silent:
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.transport.abort()
