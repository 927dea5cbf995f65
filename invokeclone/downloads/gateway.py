"""A proxy on this machine, for as long as another program fetches something: it connects where downloads may go, and nowhere else."""

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
    """An open gateway: its address with the password that it asks for, and why it refused connections."""

    url: str
    refusals: list[str] = field(default_factory=list)


@contextlib.asynccontextmanager
async def open_gateway(web: WebClient, *, limit: int) -> AsyncIterator[Gateway]:
    """Open a gateway for `limit` bytes in all; every connection ends with it."""
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
    """The connections of one gateway."""

    def __init__(self, web: WebClient, password: str, limit: int) -> None:
        self.gateway = Gateway("")
        self._web, self._remaining_bytes = web, limit
        self._password = b"basic " + b64encode(f"git:{password}".encode())
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection; it has a task of its own."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._tunnel(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # either side has gone, or never spoke as a client of a proxy does
        finally:
            self._tasks.discard(task)
            writer.close()

    async def end(self) -> None:
        """End every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEADER_TIMEOUT_S):
            header = await reader.readuntil(b"\r\n\r\n")
        match = _CONNECT.match(header)
        if match is None or not 0 < int(match["port"]) < 2**16:
            await _respond(writer, "405 Method Not Allowed", "Only https goes through here.")
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
        """Copy both ways until one side ends, or all bytes are spent."""
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
                self.gateway.refusals.append("it is larger than anything that is fetched this way")
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
