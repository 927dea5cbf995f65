"""A web of our own on this machine, with everything that goes wrong on the real one, and a Hugging Face on it."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from invokeclone.downloads.queue import DownloadQueue


@dataclass
class Page:
    """What one address answers."""

    data: bytes = b""
    etag: str | None = '"one"'
    last_modified: str | None = None
    ranges: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    """Answered first, one after the other, before anything good is."""
    breaks: list[int] = field(default_factory=list)
    """After how many bytes of the answer the connection is lost, for each of the next answers."""
    hold_after: int | None = None
    """After how many bytes the answer waits for `go`."""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    token: str | None = None
    """Asked for, if given."""


class FakeWeb:
    """Pages by path; keeps what it was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.port = 0
        self.watched: DownloadQueue | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def page(self, path: str, data: bytes = b"", **fields: Any) -> Page:
        self.pages[path] = Page(data, **fields)
        return self.pages[path]

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        self.pages[path] = Page(headers={"Location": to}, statuses=[status] * 100)

    def asked_for(self, path: str) -> list[dict[str, str]]:
        return [headers for requested, headers in self.asked if requested == path]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = dict(request.headers)
        self.asked.append((request.path_qs, headers))
        page = self.pages.get(request.path_qs) or self.pages.get(request.path)
        if page is None:
            return web.Response(status=404)
        if page.statuses:
            return web.Response(status=page.statuses.pop(0), headers=page.headers)
        if page.token and headers.get("Authorization") != f"Bearer {page.token}":
            return web.Response(status=401)
        return await self._send(request, page)

    async def _send(self, request: web.Request, page: Page) -> web.StreamResponse:
        start, status, marks = 0, 200, {}
        if page.etag:
            marks["ETag"] = page.etag
        if page.last_modified:
            marks["Last-Modified"] = page.last_modified
        range_match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        condition = request.headers.get("If-Range")
        if range_match and page.ranges and condition in {None, page.etag, page.last_modified}:
            start, status = int(range_match[1]), 206
            if start >= len(page.data):
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(page.data)}"} | marks)
            marks["Content-Range"] = f"bytes {start}-{len(page.data) - 1}/{len(page.data)}"
        body = page.data[start:]
        kind = {"Content-Type": "application/octet-stream", "Content-Length": str(len(body))}
        response = web.StreamResponse(status=status, headers=kind | marks | page.headers)
        if page.headers.get("Content-Length") == "":
            del response.headers["Content-Length"]
            response.enable_chunked_encoding()
        await response.prepare(request)
        lost = page.breaks.pop(0) if page.breaks else None
        if page.hold_after is not None:
            await response.write(body[: page.hold_after])
            body = body[page.hold_after :]
            await page.go.wait()
            if request.transport is None or request.transport.is_closing():
                return response
        await response.write(body if lost is None else body[:lost])
        if lost is not None and request.transport is not None:
            await self._arrival(request.path, start + lost)
            request.transport.close()
        return response

    async def _arrival(self, path: str, count: int) -> None:
        """Wait until a download has got so many bytes: one that learns of a loss first doesn't get at them any more."""
        for _ in range(400):
            jobs = self.watched.jobs() if self.watched else []
            if any(str(job.source).endswith(path) and job.bytes >= count and not job.ended for job in jobs):
                return
            await asyncio.sleep(0.005)


@asynccontextmanager
async def serve_fake_web() -> AsyncIterator[FakeWeb]:
    """Serve a new fake web on a free port."""
    fake_web = FakeWeb()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake_web.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    fake_web.port = server.sockets[0].getsockname()[1]
    yield fake_web
    for page in fake_web.pages.values():
        page.go.set()
    await runner.cleanup()


@dataclass
class FakeHub:
    """Hugging Face on the fake web: repositories, some of them for whoever has the token."""

    web: FakeWeb
    sha: str = "c0ffee"

    def repository(self, name: str, files: dict[str, bytes], *, token: str | None = None, lfs: bool = True) -> None:
        """Offer files; weights with their checksum, as if they were in the large file storage."""
        siblings: list[dict[str, Any]] = []
        for path, data in files.items():
            entry: dict[str, Any] = {"rfilename": path, "size": len(data)}
            if lfs and path.endswith((".safetensors", ".bin")):
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            siblings.append(entry)
            self.web.page(self.path(name, path), data, token=token)
        answer = {"id": name, "sha": self.sha, "siblings": siblings, "tags": ["x"]}
        self.web.page(f"/api/models/{name}?blobs=true", json.dumps(answer).encode(), token=token)

    def path(self, name: str, file: str) -> str:
        return f"/{name}/resolve/{self.sha}/{file}"

    def page(self, name: str, file: str) -> Page:
        return self.web.pages[self.path(name, file)]
