"""Transfers of files between a worker of another machine and its server, over HTTP with the worker's token."""

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import orjson

from invokeclone.kit.errors import FailedDependency
from invokeclone.worker.backend import errors

if TYPE_CHECKING:  # imported with the first request
    from aiohttp import ClientResponse, ClientSession

WORKER_ID = "X-Worker-Id"
CONNECT_S = 10.0
SILENCE_S = 60.0
"""Seconds without data after which a transfer counts as cut."""
CHUNK = 1024 * 1024
_UNREACHABLE = {502, 503, 504}
"""Statuses of a proxy whose server restarts, and of a server that is busy."""
_PARTIAL, _NO_RANGE, _FIRST_ERROR = 206, 416, 300


class HttpTransport:
    """Transfers over HTTP. Call all methods on one event loop; `close` at the end."""

    def __init__(self, url: str, token: str, worker_id: str) -> None:
        """Send requests to the server at `url` as the worker with this token and id."""
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", WORKER_ID: worker_id, "Accept-Encoding": "identity"}
        self._session: ClientSession | None = None

    @contextlib.asynccontextmanager
    async def get(self, path: str, start: int = 0) -> AsyncIterator[AsyncIterator[bytes]]:
        """Give the content of the response from byte `start` on, in chunks."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with self._request("GET", path, headers=headers) as response:
            skip = 0 if response.status == _PARTIAL else start  # a proxy may ignore the range
            yield _chunks(response, skip)

    async def get_json(self, path: str) -> Any:
        """Return the content of a JSON response."""
        async with self._request("GET", path) as response:
            return orjson.loads(await response.read())

    async def post(self, path: str, body: bytes) -> Any:
        """Send bytes and return the content of the JSON response."""
        async with self._request(
            "POST", path, data=body, headers={"Content-Type": "application/octet-stream"}
        ) as response:
            return orjson.loads(await response.read())

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    @contextlib.asynccontextmanager
    async def _request(self, method: str, path: str, **options: Any) -> AsyncIterator["ClientResponse"]:
        """Give a successful response. Raises the error of another one, ConnectionError if the connection is cut."""
        import aiohttp

        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
            self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout, read_bufsize=CHUNK)
        try:
            async with self._session.request(method, self._url + path, allow_redirects=False, **options) as response:
                if response.status >= _FIRST_ERROR:
                    await _raise_error(response)
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConnectionError(f"no connection to {self._url}: {error or type(error).__name__}") from error


async def _chunks(response: "ClientResponse", skip: int) -> AsyncIterator[bytes]:
    async for chunk in response.content.iter_chunked(CHUNK):
        if skip >= len(chunk):
            skip -= len(chunk)
        else:
            yield chunk[skip:]
            skip = 0


async def _raise_error(response: "ClientResponse") -> None:
    try:
        message = str(orjson.loads(await response.content.read(CHUNK))["detail"])
    except (ValueError, KeyError, TypeError):
        message = f"the server responded with {response.status} {response.reason}"
    if response.status in _UNREACHABLE:
        raise ConnectionError(message)
    if response.status == _NO_RANGE:
        raise FailedDependency("the file is shorter than it was listed")
    errors.raise_status(response.status, message)
