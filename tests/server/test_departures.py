"""Clients that leave: in the middle of what they send, and before the answer is whole. Nothing is logged above debug."""

import logging
from typing import Any

import pytest
from fastapi.routing import APIRoute

from invokeclone.kit.config.settings import Settings
from invokeclone.server.app import create_app
from invokeclone.server.http import authentication
from invokeclone.server.http.disconnects import ClientDisconnects


def scope(method: str, path: str, content_type: str, length: int = 1000) -> dict[str, Any]:
    headers = [
        (b"host", b"localhost"),
        (b"content-type", content_type.encode()),
        *([(b"content-length", str(length).encode())] if length else []),
    ]
    return {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": headers,
        "client": ("127.0.0.1", 5), "server": ("localhost", 9090), "scheme": "http", "http_version": "1.1", "root_path": "",
        "asgi": {"version": "3.0"}, "state": {},
    }  # fmt: skip


async def test_disconnect_during_the_request_is_no_error(
    settings: Settings, laid_out: None, logged: list[logging.LogRecord]
) -> None:
    """Every route that takes a body, as JSON and as a form."""
    app = create_app(settings, worker_command=None)
    tried = 0
    async with app.router.lifespan_context(app):
        logged.clear()
        for entry in authentication.table(app):
            method, path = entry.key.split(" ")
            if not isinstance(entry.route, APIRoute) or method in ("GET", "HEAD") or "/app/" in path:
                continue
            for content_type, part in (("application/json", b'{"a"'), ("multipart/form-data; boundary=x", b"--x\r\n")):
                messages = iter([{"type": "http.request", "body": part, "more_body": True}])

                async def receive(messages: Any = messages) -> Any:
                    return next(messages, {"type": "http.disconnect"})

                async def send(_message: Any) -> None:
                    pass

                await app(scope(method, path, content_type), receive, send)
                tried += 1
    wrong = [(record.getMessage(), record.exc_info) for record in logged if record.levelno > logging.WARNING]
    assert wrong == []
    assert tried > 200


@pytest.mark.parametrize("path", ["/docs", "/api/v1/images/", "/"])
async def test_disconnect_during_the_response_is_no_error(
    settings: Settings, laid_out: None, logged: list[logging.LogRecord], path: str
) -> None:
    app = create_app(settings, worker_command=None)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise ConnectionResetError("the other side has closed")

    async with app.router.lifespan_context(app):
        logged.clear()
        await app(scope("GET", path, "text/plain", 0), receive, send)
    left = [record for record in logged if "the client disconnected" in record.getMessage()]
    assert [record.levelno for record in left] == [logging.DEBUG]
    assert [record for record in logged if record.levelno > logging.DEBUG or record.exc_info] == []


async def test_failure_with_a_connected_client_is_an_error() -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await ClientDisconnects(fail)(scope("GET", "/", "text/plain", 0), fail, fail)
