"""Requests through a proxy go to the address that was checked: the name only decides on Host header and certificate."""

import asyncio
import functools
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from invokeclone.downloads import web
from invokeclone.downloads.errors import AddressRefused, DownloadFailed, TransientError
from invokeclone.downloads.proxy import url_of
from invokeclone.downloads.web import WebClient
from invokeclone.kit.config.settings import Settings
from tests.certificates import self_signed

PUBLIC, OTHER, PRIVATE = "8.8.8.8", "2606:4700:4700::1111", "10.0.0.1"


@dataclass
class FakeProxy:
    """A proxy that connects everything to one https server on this machine, and keeps what it was asked."""

    port: int = 0
    origin: int = 0
    targets: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Paths and Host headers that arrived at the https server."""
    refuses: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.targets.append(head.split("\r\n", 1)[0])
        if self.refuses or not head.startswith("CONNECT "):
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        remote_reader, remote_writer = await asyncio.open_connection("127.0.0.1", self.origin)
        await asyncio.gather(copy(reader, remote_writer), copy(remote_reader, writer))

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path, host = head.split(" ")[1], head.lower().split("host: ")[1].split("\r\n")[0]
        self.requests.append((path, host))
        location = f"Location: {path.removeprefix('/to/')}\r\n" if path.startswith("/to/") else ""
        status = "302 Found" if location else "404 Not Found" if path == "/none" else "200 OK"
        writer.write(f"HTTP/1.1 {status}\r\n{location}Content-Length: 2\r\n\r\nok".encode())
        await writer.drain()
        writer.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except OSError:
        pass
    finally:
        writer.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    return self_signed(tmp_path_factory.mktemp("tls"), "DNS:good.example", "DNS:*.good.example")


@pytest.fixture
async def proxy(certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeProxy]:
    fake = FakeProxy()
    path, context = certificate
    trusted = ssl.create_default_context(cafile=path)
    monkeypatch.setattr(aiohttp, "TCPConnector", functools.partial(aiohttp.TCPConnector, ssl=trusted))
    origin = await asyncio.start_server(fake.answer, "127.0.0.1", 0, ssl=context)
    server = await asyncio.start_server(fake.tunnel, "127.0.0.1", 0)
    fake.origin, fake.port = (each.sockets[0].getsockname()[1] for each in (origin, server))
    yield fake
    for each in (server, origin):
        each.close()


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Return what names resolve to: one answer after the other, the last one again and again."""
    answers: dict[str, list[list[str]]] = {}

    async def getaddrinfo(host: str, port: int | None, **_options: Any) -> list[tuple[object, ...]]:
        if host == "127.0.0.1":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        if host not in answers:
            raise socket.gaierror(-2, "Name or service not known")
        found = answers[host].pop(0) if len(answers[host]) > 1 else answers[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return answers


@pytest.fixture
async def client(tmp_path: Path, proxy: FakeProxy) -> AsyncIterator[WebClient]:
    web_client = WebClient(Settings(root=tmp_path, download_proxy=proxy.url), webhooks=True)
    yield web_client
    await web_client.close()


async def read(client: WebClient, url: str) -> tuple[str, bytes]:
    async with client.get(url) as response:
        web.check_status(response)
        return str(url_of(response)), await response.read()


async def post(client: WebClient, url: str) -> int:
    return (await client.post(url, b"{}", {}, timeout_s=20)).status


async def test_the_proxy_gets_the_checked_address(
    client: WebClient, proxy: FakeProxy, names: dict[str, list[list[str]]]
) -> None:
    """A name that resolves to a private address at the second time does not reach it: it is resolved once."""
    names["good.example"] = [[PRIVATE, OTHER, PUBLIC], [PRIVATE]]
    names["a.good.example"] = [[OTHER]]
    assert await read(client, "https://good.example/x?y=%2F") == ("https://good.example/x?y=%2F", b"ok")
    assert await post(client, "https://a.good.example:8443/hook") == 200
    assert proxy.targets == [f"CONNECT {PUBLIC}:443 HTTP/1.1", f"CONNECT [{OTHER}]:8443 HTTP/1.1"]
    assert proxy.requests == [("/x?y=%2F", "good.example"), ("/hook", "a.good.example:8443")]
    for send in (read, post):
        with pytest.raises(AddressRefused, match=r"good\.example is not on the public internet"):
            await send(client, "https://good.example/x")
    assert len(proxy.targets) == 2


async def test_tunnels_of_other_programs_go_to_the_checked_address(
    client: WebClient, proxy: FakeProxy, names: dict[str, list[list[str]]]
) -> None:
    names["good.example"] = [[PUBLIC], [PRIVATE]]
    _reader, writer = await client.connect("good.example", 443)
    writer.close()
    assert proxy.targets == [f"CONNECT {PUBLIC}:443 HTTP/1.1"]
    with pytest.raises(AddressRefused):
        await client.connect("good.example", 443)
    with pytest.raises(TransientError, match="download_proxy_resolves_names"):
        await client.connect("unknown.example", 443)


async def test_the_certificate_must_be_of_the_name(
    client: WebClient, proxy: FakeProxy, names: dict[str, list[list[str]]]
) -> None:
    """A connection that was made for another name of the address is not used."""
    names["good.example"] = names["evil.example"] = [[PUBLIC]]
    await read(client, "https://good.example/x")
    for send in (read, post):
        with pytest.raises(DownloadFailed, match=r"the certificate of evil\.example is not valid"):
            await send(client, "https://evil.example/x")
    assert [host for _, host in proxy.requests] == ["good.example"]


async def test_redirects_are_checked_and_messages_have_names(
    client: WebClient, proxy: FakeProxy, names: dict[str, list[list[str]]]
) -> None:
    names["good.example"], names["inner.good.example"] = [[PUBLIC]], [[PRIVATE]]
    with pytest.raises(AddressRefused, match=r"inner\.good\.example"):
        await read(client, "https://good.example/to/https://inner.good.example/secret")
    with pytest.raises(DownloadFailed, match=r"good\.example does not have /none"):
        await read(client, "https://good.example/to/https://good.example/none")
    assert {host for _, host in proxy.requests} == {"good.example"}


@pytest.mark.parametrize("url", ["https://unknown.example/", "http://good.example/"])
async def test_what_needs_a_proxy_that_resolves_names_is_refused(
    client: WebClient, proxy: FakeProxy, names: dict[str, list[list[str]]], url: str
) -> None:
    names["good.example"] = [[PUBLIC]]
    for send in (read, post):
        with pytest.raises((AddressRefused, DownloadFailed, TransientError), match="download_proxy_resolves_names"):
            await send(client, url)
    assert proxy.targets == []


async def test_a_proxy_that_refuses_addresses_is_reported(
    client: WebClient, proxy: FakeProxy, names: dict[str, list[list[str]]]
) -> None:
    names["good.example"] = [[PUBLIC]]
    proxy.refuses = True
    with pytest.raises(TransientError, match=r"refused to connect to good\.example \(403\).*resolves_names"):
        await read(client, "https://good.example/")


@pytest.mark.parametrize("through_proxy", [True, False])
async def test_names_without_an_answer_occupy_few_threads(
    tmp_path: Path, proxy: FakeProxy, monkeypatch: pytest.MonkeyPatch, through_proxy: bool
) -> None:
    """Also after the requests have timed out; others are resolved as soon as some have ended."""
    running, ends = [], asyncio.Event()

    async def getaddrinfo(host: str, port: int | None, **_options: Any) -> list[tuple[object, ...]]:
        running.append(host)
        await ends.wait()
        running.remove(host)
        raise socket.gaierror(-2, "Name or service not known")

    client = WebClient(Settings(root=tmp_path, download_proxy=proxy.url if through_proxy else None), webhooks=True)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    for _ in range(2):
        posts = (client.post(f"https://tarpit{n}.example/", b"", {}, timeout_s=0.05) for n in range(8))
        errors = await asyncio.gather(*posts, return_exceptions=True)
        assert {type(error) for error in errors} == {DownloadFailed}
        assert len(running) == 3
    ends.set()
    async with asyncio.timeout(20):
        while running:
            await asyncio.sleep(0)
    with pytest.raises(DownloadFailed, match="Name or service not known"):
        await client.post("https://gone.example/", b"", {}, timeout_s=20)
    await client.close()


@pytest.mark.parametrize(("webhooks", "resolves_names"), [(False, False), (True, True)])
async def test_a_proxy_resolves_names_of_downloads_and_if_configured_of_webhooks(
    tmp_path: Path, proxy: FakeProxy, names: dict[str, list[list[str]]], webhooks: bool, resolves_names: bool
) -> None:
    settings = Settings(root=tmp_path, download_proxy=proxy.url, download_proxy_resolves_names=resolves_names)
    client = WebClient(settings, webhooks=webhooks)
    names["inner.good.example"] = [[PRIVATE]]
    assert (await read(client, "https://good.example/x"))[1] == b"ok"
    assert proxy.targets == ["CONNECT good.example:443 HTTP/1.1"]
    with pytest.raises(AddressRefused):
        await read(client, "https://inner.good.example/x")
    proxy.refuses = True
    with pytest.raises(TransientError, match=r"refused to connect to good\.example \(403\)$"):
        await read(client, "https://good.example/x")
    await client.close()
