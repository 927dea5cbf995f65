"""Connections through the operator's proxy, to an address that was checked on this machine.

A proxy that gets a name resolves it itself, and a name server that answers it with another address than this machine would
lead it into the private network (DNS rebinding). For webhooks it gets the address instead; the name is in the Host header,
and the certificate is checked for it.
"""

import asyncio
import base64
import re
import socket
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from invokeclone.downloads.errors import AddressRefused, TransientError
from invokeclone.kit.process.offload import shield

if TYPE_CHECKING:
    from aiohttp import ClientResponse
    from yarl import URL

RESOLVE_TIMEOUT_S = 30.0
Result = TypeVar("Result")
SETTING = "download_proxy_resolves_names"
INVALID_NAME = "not a valid host name: a part of it is empty or too long"
HINT = f"if the proxy refuses private addresses itself, it may resolve names: setting {SETTING}"


class Route(NamedTuple):
    """How a URL is requested."""

    url: "URL"
    headers: Mapping[str, str] = {}
    options: Mapping[str, Any] = {}


def pin(url: "URL", address: str, proxy: str) -> Route:
    """Return the route to an https URL through the proxy at an address of its host. Raises AddressRefused."""
    name = ascii_name(url.host or "")
    headers = {"Host": name if url.is_default_port() else f"{name}:{url.port}"}
    return Route(url.with_host(address), headers, {"proxy": proxy, "server_hostname": name.rstrip(".")})


def ascii_name(host: str) -> str:
    """Return a host name as it is written in headers. Raises AddressRefused."""
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError as error:
        raise AddressRefused(INVALID_NAME) from error


def url_of(response: "ClientResponse") -> "URL":
    """Return the URL of a response, with the name that was requested and not the address."""
    parts = urlsplit(f"//{response.request_info.headers.get('Host', '')}")
    return response.url.with_host(parts.hostname) if parts.hostname else response.url


class Lookups:
    """Limits how many names are resolved at a time.

    A lookup occupies a thread of the event loop until it ends, also if nobody waits for it any more: users with names whose
    name servers do not respond would occupy all of them, and the database could not be connected to any more.
    """

    def __init__(self, limit: int = 3) -> None:
        """Limit lookups; Python's event loop has five threads or more."""
        self._semaphore = asyncio.Semaphore(limit)

    async def run(self, lookup: Coroutine[Any, Any, Result]) -> Result:
        """Return the result of a lookup."""
        try:
            await self._semaphore.acquire()
        except asyncio.CancelledError:
            lookup.close()
            raise
        task = asyncio.ensure_future(lookup)
        task.add_done_callback(lambda _task: self._semaphore.release())
        return await shield(task)


async def resolve(lookups: Lookups, host: str, port: int | None = None) -> list[str]:
    """Return the addresses of a host, IPv4 first, as not every network has IPv6. Raises AddressRefused, TransientError."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            address_infos = await lookups.run(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except OSError as error:
        raise TransientError(f"the name {host} cannot be resolved: {error or 'no response'}") from error
    except ValueError as error:  # of a name that cannot be encoded
        raise AddressRefused(INVALID_NAME) from error
    return sorted(dict.fromkeys(str(info[4][0]) for info in address_infos), key=lambda address: ":" in address)


async def connect(proxy: str, target: str, port: int, host: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a tunnel to `target`, an address or the name of `host`, through an HTTP proxy.

    Raises TransientError, ConnectionError.
    """
    parts = urlsplit(proxy)
    secure = parts.scheme == "https"
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port or (443 if secure else 80), ssl=True if secure else None
    )
    authority = f"[{target}]:{port}" if ":" in target else f"{target}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if parts.username:
        account = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(account).decode()}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        writer.close()
        raise TransientError("the proxy sent an invalid response") from error
    if not re.match(rb"HTTP/1\.[01] 200\b", answer):
        writer.close()
        hint = "" if target == host else f"; {HINT}"
        raise TransientError(f"the proxy refused to connect to {host}{hint}")
    return reader, writer
