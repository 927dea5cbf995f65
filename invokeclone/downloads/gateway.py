"""A temporary local proxy for external programs such as git that enforces the address rules of downloads."""

import asyncio
import contextlib
import re
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from invokeclone.downloads.web import WebClient
from invokeclone.kit.errors import InvokeCloneError

HEADER_TIMEOUT_S = 30.0
_MAX_HEADER = 8192
_CHUNK_BYTES = 64 * 1024
_CONNECT = re.compile(rb"CONNECT (?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s:]+)):(?P<port>\d{1,5}) HTTP/1\.[01]\r\n")


@dataclass
class Gateway:
    """An open gateway: its URL with its password, and the reasons of refused connections."""

    url: str
    refusals: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def open_gateway(web: WebClient, *, limit: int) -> AsyncIterator[Gateway]:
    """Run a gateway that transfers at most `limit` bytes; its connections are closed on exit."""
    password = secrets.token_urlsafe(16)
    tunnels = _Tunnels(web, password, limit)
    server = await asyncio.start_server(tunnels.serve, "127.0.0.1", 0, limit=_MAX_HEADER)
    port = server.sockets[0].getsockname()[1]
    tunnels.gateway.url = f"http://git:{password}@127.0.0.1:{port}"
    try:
        yield tunnels.gateway
    finally:
        server.close()
        await tunnels.end()


class _Tunnels:
    """The tunnels of one gateway."""

    def __init__(self, web: WebClient, password: str, limit: int) -> None:
        self.gateway = Gateway("")
        self._web, self._remaining_bytes = web, limit
        self._password = b"basic " + b64encode(f"git:{password}".encode())
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one client connection, in its own task."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._tunnel(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a side disconnected, or the client does not speak the proxy protocol
        finally:
            self._tasks.discard(task)
            writer.close()

    async def end(self) -> None:
        """Close every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEADER_TIMEOUT_S):
            header = await reader.readuntil(b"\r\n\r\n")
        match = _CONNECT.match(header)
        if match is None or not 0 < int(match["port"]) < 2**16:
            await _respond(writer, "405 Method Not Allowed", "This proxy only tunnels https.")
            return
        if not self._is_authorized(header):
            await _respond(writer, "407 Proxy Authentication Required", "")
            return
        host = (match["v6"] or match["name"]).decode("ascii", "replace")
        try:
            remote_reader, remote_writer = await self._web.connect(host, int(match["port"]))
        except InvokeCloneError as error:
            self.gateway.refusals.append(str(error))
            await _respond(writer, "403 Forbidden", str(error))
            return
        try:
            await _respond(writer, "200 Connection established", None)
            await self._relay(((reader, remote_writer), (remote_reader, writer)))
        finally:
            remote_writer.close()

    def _is_authorized(self, header: bytes) -> bool:
        lines = (line.partition(b":") for line in header.split(b"\r\n"))
        credentials = [value.strip() for name, _, value in lines if name.lower() == b"proxy-authorization"]
        return any(value[:6].lower() + value[6:] == self._password for value in credentials)

    async def _relay(self, directions: tuple[tuple[asyncio.StreamReader, asyncio.StreamWriter], ...]) -> None:
        """Copy in both directions until one side closes or the byte limit is reached."""
        tasks = [asyncio.ensure_future(self._copy(*direction)) for direction in directions]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            self._remaining_bytes -= len(data)
            if self._remaining_bytes < 0:
                self.gateway.refusals.append("the transfer exceeds the size limit")
                return
            writer.write(data)
            await writer.drain()


async def _respond(writer: asyncio.StreamWriter, status: str, text: str | None) -> None:
    body = (text or "").encode()
    head = f"HTTP/1.1 {status}\r\n"
    if status.startswith("407"):
        head += 'Proxy-Authenticate: Basic realm="invokeclone"\r\n'
    if text is not None:
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n"
    writer.write(f"{head}\r\n".encode() + body)
    await writer.drain()
