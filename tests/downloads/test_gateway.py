"""The gateway for programs that fetch by themselves: the address rules of downloads, a password, one method, a limit."""

import asyncio
import contextlib
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from invokeclone.downloads import web as web_module
from invokeclone.downloads.errors import AddressRefused
from invokeclone.downloads.gateway import Gateway, open_gateway
from invokeclone.downloads.web import WebClient
from invokeclone.kit.config.settings import Settings


@pytest.fixture
async def echo() -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve what comes back as it came; returns the port and what arrived."""
    arrived: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            arrived.append(data)
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], arrived
    server.close()


def web(tmp_path: Path, **changes: object) -> WebClient:
    return WebClient(Settings(root=tmp_path).model_copy(update=changes))


@contextlib.asynccontextmanager
async def client(way: Gateway) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(way.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    yield reader, writer
    writer.close()


async def ask(way: Gateway, target: str, *, method: str = "CONNECT", password: str | None = None) -> bytes:
    """Return the whole answer to one request."""
    async with client(way) as (reader, writer):
        writer.write(head(way, target, method, password))
        return await asyncio.wait_for(reader.read(), 20)


def head(way: Gateway, target: str, method: str = "CONNECT", password: str | None = None) -> bytes:
    account = f"git:{urlsplit(way.url).password if password is None else password}".encode()
    return f"{method} {target} HTTP/1.1\r\nProxy-Authorization: Basic {b64encode(account).decode()}\r\n\r\n".encode()


async def test_bytes_are_relayed_in_both_directions(tmp_path: Path, echo: tuple[int, list[bytes]]) -> None:
    async with (
        open_gateway(web(tmp_path, allow_private_download_urls=True), limit=10_000) as way,
        client(way) as (reader, writer),
    ):
        writer.write(head(way, f"127.0.0.1:{echo[0]}"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
    assert way.refusals == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "printer", "nas.local", "2130706433", "0x7f.1"])  # fmt: skip
async def test_private_addresses_are_refused(tmp_path: Path, echo: tuple[int, list[bytes]], host: str) -> None:
    async with open_gateway(web(tmp_path), limit=10_000) as way:
        answer = await ask(way, f"{host}:{echo[0]}")
    assert not answer.startswith(b"HTTP/1.1 200 ")
    assert len(way.refusals) == 1
    assert echo[1] == []


async def test_names_resolving_to_private_addresses_are_refused(
    tmp_path: Path, echo: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()

    async def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        assert host == "rebind.example.com"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(loop, "getaddrinfo", resolve)
    with pytest.raises(AddressRefused, match="not on the public internet"):
        await web(tmp_path).connect("rebind.example.com", echo[0])
    assert echo[1] == []


async def test_other_methods_and_unauthorized_clients_are_refused(
    tmp_path: Path, echo: tuple[int, list[bytes]]
) -> None:
    async with open_gateway(web(tmp_path, allow_private_download_urls=True), limit=10_000) as way:
        target = f"127.0.0.1:{echo[0]}"
        assert (await ask(way, f"http://{target}/", method="GET")).startswith(b"HTTP/1.1 405 ")
        assert (await ask(way, f"{target}0000")).startswith(b"HTTP/1.1 405 ")
        assert (await ask(way, target, password="wrong")).startswith(b"HTTP/1.1 407 ")
        async with client(way) as (reader, writer):
            writer.write(b"x" * 20_000)
            assert await asyncio.wait_for(reader.read(), 20) == b""
    assert echo[1] == []


async def test_total_traffic_is_limited(tmp_path: Path, echo: tuple[int, list[bytes]]) -> None:
    async with (
        open_gateway(web(tmp_path, allow_private_download_urls=True), limit=100) as way,
        client(way) as (reader, writer),
    ):
        writer.write(head(way, f"127.0.0.1:{echo[0]}"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"x" * 101)
        assert await asyncio.wait_for(reader.read(), 20) == b""
    assert "exceeds the size limit" in way.refusals[0]


async def test_the_configured_proxy_is_used_for_public_names(tmp_path: Path) -> None:
    requests: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello" if b"good" in requests[-1] else b"HTTP/1.1 502 Bad\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    through = web(tmp_path, download_proxy=f"http://me:s%20t@127.0.0.1:{port}")
    reader, writer = await through.connect("good.example", 443)
    assert await reader.read() == b"hello"
    writer.close()
    assert b"CONNECT good.example:443 HTTP/1.1" in requests[0]
    assert b64encode(b"me:s t") in requests[0]
    with pytest.raises(web_module.TransientError, match="refused to connect"):
        await through.connect("bad.example", 443)
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(AddressRefused):
            await through.connect(host, 443)
    assert len(requests) == 2
    server.close()
