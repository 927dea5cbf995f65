"""HTTP client that only connects to public addresses, follows redirects itself and sends a token to its origin only.

The addresses that a host name resolves to are checked, and each address again when its socket is created, which defeats
DNS rebinding; for webhooks a proxy gets a checked address (`proxy.py`).
"""

import asyncio
import contextlib
import importlib
import re
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from invokeclone.downloads import addresses, proxy
from invokeclone.downloads.errors import AccessDenied, AddressRefused, DownloadFailed, TransientError
from invokeclone.downloads.proxy import Lookups, Route
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.process.offload import in_thread
from invokeclone.version import __version__

if TYPE_CHECKING:  # aiohttp is imported when something is first fetched
    from aiohttp import ClientResponse, ClientSession, TCPConnector
    from aiohttp.abc import ResolveResult
    from yarl import URL

MAX_REDIRECTS = 10
MAX_JSON_BYTES = 64 * 1024 * 1024
JSON_TRIES = 3
MAX_JSON_RETRY_DELAY_S = 5.0
"""Longest delay before `get_json` retries, as a user may be waiting for the result."""
CONNECT_TIMEOUT_S = 30.0
READ_TIMEOUT_S = 60.0
"""How long the server may send nothing."""
READ_BUFFER_BYTES = 1024 * 1024

_REDIRECT_STATUSES = {301, 302, 303, 307, 308}
_TRANSIENT_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}\Z")


class _PrivateAddressError(OSError):
    """The address is not public. An OSError, as aiohttp's connector handles only those."""


class PostResult(NamedTuple):
    """The response to a POST, whose body is not read."""

    status: int
    retry_after: float | None
    """Seconds, if the server gave a number of them."""


class WebClient:
    """HTTP client. `get` and `post` may be called by many tasks at once; call `close` at the end."""

    def __init__(self, settings: Settings, initial_retry_delay: float = 1.0, *, webhooks: bool = False) -> None:
        """Take `allow_private_download_urls` (or `…_webhook_urls`), `download_proxy` and `remote_api_tokens`.

        `initial_retry_delay` is the delay in seconds before a failed request is retried. The session is opened on first
        use.

        A proxy gets the names of hosts, as many proxies allow certain names only; those of webhooks, whose URLs any user
        may choose, only if it is configured to refuse private addresses.
        """
        self._initial_retry_delay = initial_retry_delay
        self._allow_private = settings.allow_private_webhook_urls if webhooks else settings.allow_private_download_urls
        self._private_setting = "allow_private_webhook_urls" if webhooks else "allow_private_download_urls"
        self._proxy = settings.download_proxy
        self._proxy_resolves = not webhooks or settings.download_proxy_resolves_names or self._allow_private
        self._tokens = settings.remote_api_tokens or []
        self._session: ClientSession | None = None
        self._lookups = Lookups()

    @property
    def _hint(self) -> str:
        return "" if self._proxy_resolves else f"; {proxy.HINT}"

    def token_for(self, url: str) -> str | None:
        """Return the token configured for a URL.

        The match of a pattern must start within the scheme and host, so that a URL which merely contains a host name in
        its path or query does not get that host's token.
        """
        host_ends = re.match(r"[a-z]+://[^/?#]*", url)
        for pair in self._tokens:
            match = re.search(pair.url_regex, url)
            if match and host_ends and match.start() < host_ends.end():
                return pair.token
        return None

    @contextlib.asynccontextmanager
    async def get(
        self,
        url: str,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        hops: list[Mapping[str, str]] | None = None,
    ) -> "AsyncIterator[ClientResponse]":
        """Yield the response to a GET after following redirects, and close it afterwards.

        The headers of the redirects are appended to `hops`. Statuses other than temporary failures are left to the
        caller.

        Raises AddressRefused, AccessDenied, DownloadFailed (invalid certificate, too many redirects), TransientError.
        """
        response = None
        try:
            response = await self._follow(url, token, dict(headers or {}), [] if hops is None else hops)
            if response.status in _TRANSIENT_STATUSES:
                raise TransientError(f"{_host(response)} returned status {response.status}", _retry_after(response))
            yield response
        finally:
            if response is not None:
                response.close()

    async def get_json(self, url: str, *, token: str | None = None, tries: int = JSON_TRIES) -> Any:
        """Return the JSON at a URL. Raises DownloadFailed and its subclasses, AddressRefused."""
        for failures in range(1, tries + 1):
            try:
                text = await self._get_text(url, token)
            except TransientError as error:
                if failures == tries:
                    raise DownloadFailed(str(error)) from error
                await asyncio.sleep(
                    min(error.retry_after or self._initial_retry_delay * failures, MAX_JSON_RETRY_DELAY_S)
                )
            else:
                break
        try:
            return await in_thread(orjson.loads, text)
        except ValueError as error:
            raise DownloadFailed(f"the response of {without_query(url)} is not JSON") from error

    async def _get_text(self, url: str, token: str | None) -> bytearray:
        text = bytearray()
        async with self.get(url, token=token, headers={"Accept": "application/json"}) as response:
            check_status(response)
            with translate_errors():
                async for chunk in response.content.iter_any():
                    text += chunk
                    if len(text) > MAX_JSON_BYTES:
                        raise DownloadFailed(f"the response of {without_query(url)} is too large")
        return text

    def check_address(self, address: str) -> None:
        """Raise AddressRefused for a URL that may not be requested, as far as that is known without resolving names."""
        self._check(_parse(address))

    async def post(self, address: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> PostResult:
        """Send `body` without following redirects and without a token. Raises AddressRefused and DownloadFailed."""
        url = _parse(address)
        options: dict[str, Any] = {"data": body, "allow_redirects": False}
        self._check(url)
        session = await self._open_session()
        try:
            with translate_errors(url.host, self._hint):
                async with asyncio.timeout(timeout_s):
                    route = await self._route(url)
                    options |= {"headers": {**headers, **route.headers}, **route.options}
                    async with session.post(route.url, **options) as response:
                        return PostResult(response.status, _retry_after(response))
        except TransientError as error:
            raise DownloadFailed(str(error)) from error

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _follow(
        self, address: str, token: str | None, headers: dict[str, str], hops: list[Mapping[str, str]]
    ) -> "ClientResponse":
        session = await self._open_session()
        from yarl import URL

        if token and not _TOKEN.match(token):
            raise AccessDenied("the access token contains invalid characters or is too long")
        url = original_url = URL(address, encoded=True)
        for _ in range(MAX_REDIRECTS + 1):
            route = await self._route(url)
            request_headers = {**headers, **route.headers, "Accept-Encoding": "identity"}
            if token and url.origin() == original_url.origin():
                request_headers["Authorization"] = f"Bearer {token}"
            with translate_errors(url.host, self._hint):
                response = await session.get(route.url, headers=request_headers, allow_redirects=False, **route.options)
            if response.status not in _REDIRECT_STATUSES:
                return response
            location = response.headers.get("Location", "")
            hops.append(response.headers)
            response.close()
            url = _redirect_url(url, location)
        raise DownloadFailed(f"{original_url.host} redirects too often")

    async def _open_session(self) -> "ClientSession":
        if self._session is None:
            await in_thread(importlib.import_module, "aiohttp")
        if self._session is None:  # another task may have opened it during the import
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=READ_BUFFER_BYTES,
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S),
                headers={"User-Agent": f"invokeclone/{__version__}"},
            )
        return self._session

    def _connector(self) -> "TCPConnector":
        """Return the connector; the proxy is set by the operator and may have any address."""
        import aiohttp

        if self._allow_private or self._proxy:
            # A connection to an address that was checked for one name must not be used for another one.
            return aiohttp.TCPConnector(force_close=bool(self._proxy) and not self._proxy_resolves)
        from aiohttp.resolver import ThreadedResolver

        setting, lookups = self._private_setting, self._lookups

        class PublicOnly(ThreadedResolver):
            async def resolve(
                self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
            ) -> "list[ResolveResult]":
                results = await lookups.run(super().resolve(host, port, family))
                public = [address for address in results if addresses.is_public(address["host"])]
                if not public:
                    raise _PrivateAddressError(_refusal(host, setting))
                return public

        return aiohttp.TCPConnector(resolver=PublicOnly(), socket_factory=_public_socket)

    async def _route(self, url: "URL") -> Route:
        """Return how to request a URL. Raises AddressRefused, TransientError."""
        self._check(url)
        host = url.host or ""
        if not self._proxy:
            return Route(url)
        if self._proxy_resolves:
            await self._check_for_proxy(host)
        elif not addresses.is_address(host):
            return proxy.pin(url, (await self._resolve(host))[0], self._proxy)
        return Route(url, options={"proxy": self._proxy})

    def _check(self, url: "URL") -> None:
        """Raise AddressRefused for a disallowed URL before connecting."""
        if url.scheme not in {"http", "https"} or not url.host:
            raise AddressRefused(f"not an HTTP(S) URL: {without_query(str(url))}")
        if url.user or url.password:
            raise AddressRefused("URLs with a user name or password are not allowed; use an access token instead")
        self._check_host(url.host)
        if self._proxy and url.scheme == "http" and not (self._proxy_resolves or addresses.is_address(url.host)):
            raise AddressRefused(f"through download_proxy, names are allowed in https URLs only; {proxy.HINT}")

    def _check_host(self, host: str) -> None:
        """Raise AddressRefused for a private address or local name, unless the settings allow it."""
        if self._allow_private:
            return
        literal = addresses.is_address(host)
        if (literal and not addresses.is_public(host)) or (not literal and addresses.is_local_name(host)):
            raise AddressRefused(_refusal(host, self._private_setting))

    async def _resolve(self, host: str, port: int | None = None) -> list[str]:
        """Return the addresses of a host that may be connected to. Raises AddressRefused, TransientError."""
        try:
            resolved = await proxy.resolve(self._lookups, host, port)
        except TransientError as error:
            raise (TransientError(f"{error}; {proxy.HINT}") if self._proxy else error) from error
        allowed = [address for address in resolved if self._allow_private or addresses.is_public(address)]
        if not allowed:
            raise AddressRefused(_refusal(host, self._private_setting))
        return allowed

    async def connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a TCP connection to a public address of `host`, through the proxy if one is configured.

        Raises AddressRefused, TransientError.
        """
        self._check_host(host)
        if self._proxy and self._proxy_resolves:
            await self._check_for_proxy(host)
        with translate_errors():
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if not self._proxy:
                    return await _connect_to_first(await self._resolve(host, port), port)
                target = host if self._proxy_resolves else (await self._resolve(host, port))[0]
                return await proxy.connect(self._proxy, target, port, host)

    async def _check_for_proxy(self, host: str) -> None:
        """Raise AddressRefused if a name resolves to a private address; unresolvable names are left to the proxy."""
        if self._allow_private:
            return
        with contextlib.suppress(TransientError):
            if not all(map(addresses.is_public, await proxy.resolve(self._lookups, host))):
                raise AddressRefused(_refusal(host, self._private_setting))


def check_status(response: "ClientResponse") -> None:
    """Raise AccessDenied or DownloadFailed for an error status; 416 is left to the caller."""
    status, host = response.status, _host(response)
    if status in {401, 403}:
        hint = response.headers.get("X-Error-Message") or "an access token is missing or not accepted"
        raise AccessDenied(f"{host} denied access ({status}): {hint}")
    if status == 404:  # noqa: PLR2004  (the status itself)
        raise DownloadFailed(f"{host} does not have {response.url.path} (404)")
    if status not in {200, 206, 416}:
        raise DownloadFailed(f"{host} returned status {status}")


@contextlib.contextmanager
def translate_errors(host: str | None = None, hint: str = "") -> Iterator[None]:
    """Convert aiohttp exceptions of a request to `host` to this package's errors; `hint` is for a refusal by a proxy."""
    import aiohttp

    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise DownloadFailed(f"the certificate of {host or error.host} is not valid") from error
    except aiohttp.ClientHttpProxyError as error:
        raise TransientError(f"the proxy refused to connect to {host} ({error.status}){hint}") from error
    except aiohttp.InvalidURL as error:
        raise AddressRefused(f"not a valid URL: {error}") from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, _PrivateAddressError):
            raise AddressRefused(str(error.os_error)) from error
        raise TransientError(f"no connection to {host or error.host}: {error.os_error}") from error
    except UnicodeError as error:
        raise AddressRefused(proxy.INVALID_NAME) from error
    except (aiohttp.ClientError, TimeoutError, ConnectionError, socket.gaierror) as error:
        raise TransientError(str(error) or "the connection failed or timed out") from error


def without_query(url: str) -> str:
    """Return a URL without query and fragment, for logs: a query may contain tokens and signatures."""
    return re.split(r"[?#]", url, maxsplit=1)[0]


def _public_socket(info: Any) -> socket.socket:
    family, kind, protocol, _, address = info
    if not addresses.is_public(str(address[0])):
        raise _PrivateAddressError(_refusal(str(address[0])))
    return socket.socket(family, kind, protocol)


def _refusal(host: str, setting: str = "allow_private_download_urls") -> str:
    return f"{host} is not on the public internet; to allow it, set {setting}"


def _parse(address: str) -> "URL":
    """Return a URL as it is written. Raises AddressRefused."""
    from yarl import URL

    if re.search(r"[\x00-\x20\x7f]", address):
        raise AddressRefused("not a valid URL: it contains a space or a control character")
    try:
        url = URL(address, encoded=True)
        url.port  # noqa: B018  (checks it)
    except ValueError as error:
        raise AddressRefused(f"not a valid URL: {error}") from error
    return url


async def _connect_to_first(hosts: list[str], port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address that accepts the connection."""
    for host in hosts[:-1]:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection(host, port)
    return await asyncio.open_connection(hosts[-1], port)


def _redirect_url(url: "URL", location: str) -> "URL":
    from yarl import URL

    if not location:
        raise DownloadFailed(f"{url.host} redirects without a Location header")
    try:
        target = url.join(URL(location, encoded=location.isascii() and " " not in location))
    except ValueError as error:
        raise DownloadFailed(f"{url.host} redirects to an invalid URL") from error
    if url.scheme == "https" and target.scheme == "http":
        raise AddressRefused(f"{url.host} redirects from https to http")
    return target


def _host(response: "ClientResponse") -> str:
    return proxy.url_of(response).host or ""


def _retry_after(response: "ClientResponse") -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None
