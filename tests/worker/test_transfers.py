"""Transfers over HTTP against a small server: ranges, cut connections, and errors with the server's text."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from invokeclone.kit.errors import Conflict, FailedDependency, NotFound, Unauthorized
from invokeclone.worker.backend.errors import OperationFailed
from invokeclone.worker.backend.http import HttpTransport

CONTENT = bytes(range(256)) * 10


async def _file(request: web.Request) -> web.StreamResponse:
    """Serve ranges, or all of the content if the query says so, or half of it."""
    start = request.http_range.start or 0
    mode = request.query.get("mode", "")
    assert (request.headers["Authorization"], request.headers["X-Worker-Id"]) == ("Bearer secret", "w1")
    assert request.headers["Accept-Encoding"] == "identity"
    if mode == "whole":
        return web.Response(body=CONTENT)
    response = web.StreamResponse(status=206 if start else 200, headers={"Content-Length": str(len(CONTENT) - start)})
    await response.prepare(request)
    await response.write(CONTENT[start : start + 100] if mode == "cut" else CONTENT[start:])
    if mode == "cut":
        assert request.transport
        request.transport.close()
    return response


async def _error(request: web.Request) -> web.Response:
    status = int(request.match_info["status"])
    if request.query.get("plain"):
        return web.Response(status=status, text="<html>")
    return web.json_response({"detail": "the reason"}, status=status)


async def _echo(request: web.Request) -> web.Response:
    return web.json_response({"size": len(await request.read()), "type": request.content_type})


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    app = web.Application()
    app.router.add_get("/file", _file)
    app.router.add_route("*", "/error/{status}", _error)
    app.router.add_post("/echo", _echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    client = HttpTransport(f"http://127.0.0.1:{runner.addresses[0][1]}/", "secret", "w1")
    yield client
    await client.close()
    await runner.cleanup()


async def read(transport: HttpTransport, path: str, start: int = 0) -> bytes:
    received = b""
    async with transport.get(path, start) as chunks:
        async for chunk in chunks:
            received += chunk
    return received


@pytest.mark.parametrize("start", [0, 1, 700, len(CONTENT) - 1])
async def test_a_range_is_the_rest_of_the_file_also_where_ranges_are_ignored(
    transport: HttpTransport, start: int
) -> None:
    for path in ("/file", "/file?mode=whole"):
        assert await read(transport, path, start) == CONTENT[start:]


async def test_a_cut_connection_is_a_connection_error(transport: HttpTransport) -> None:
    received = b""
    with pytest.raises(ConnectionError):
        async with transport.get("/file?mode=cut", 10) as chunks:
            async for chunk in chunks:
                received += chunk
    assert received == CONTENT[10:110]
    for status in (502, 503, 504):
        with pytest.raises(ConnectionError):
            await read(transport, f"/error/{status}")
    nowhere = HttpTransport("http://127.0.0.1:1", "secret", "w1")
    with pytest.raises(ConnectionError, match="no connection to"):
        await nowhere.get_json("/x")
    await nowhere.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, Unauthorized), (404, NotFound), (409, Conflict), (416, FailedDependency), (500, OperationFailed),
     (302, OperationFailed), (507, OSError)],
)  # fmt: skip
async def test_errors_have_the_servers_text(transport: HttpTransport, status: int, kind: type[Exception]) -> None:
    for request in (read(transport, f"/error/{status}"), transport.post(f"/error/{status}", b"x")):
        with pytest.raises(kind) as info:
            await request
        assert "the reason" in str(info.value) or status == 416
    with pytest.raises(kind):
        await transport.get_json(f"/error/{status}?plain=1")


async def test_a_body_is_sent_as_it_is(transport: HttpTransport) -> None:
    answer: Any = await transport.post("/echo", CONTENT)
    assert answer == {"size": len(CONTENT), "type": "application/octet-stream"}
