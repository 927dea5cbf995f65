"""ASGI middleware before routing: body size limits, NUL characters, doubled slashes, image moves."""

import contextlib
import re
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invokeclone.images.errors import ImagesMoving
from invokeclone.kit.config.limits import MIB, Limits
from invokeclone.kit.requests import BodyOverLimit, LimitedBody
from invokeclone.kit.resources import Resources
from invokeclone.server.http.errors import answer
from invokeclone.shims import routers as shims
from invokeclone.worker.backend.transfers import IMAGES

VIDEO_FIELDS = 2 * MIB
"""Allowance for the form fields around a video."""

OWN_API = ("/api/v1/", "/api/v2/")
IMAGE_FILES = re.compile(r"/api/v1/images/i/[^/]*/(full|thumbnail|workflow)|/api/v1/images/download/.*")
IMAGE_CHANGES = ("/api/v1/images/", "/api/v1/boards/", "/api/v1/board_images/")

WORKER_IMAGES = re.compile(IMAGES.format(item_id="[^/]*"))

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class BodyLimit:
    """Responds with 413 if a body is larger than its route allows; reads nothing past the limit."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with a counting `receive`."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = _limit(self.limits, scope["path"], headers.get("content-type", ""))
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit.bytes:
            await _too_large(scope, limit)(scope, receive, send)
            return
        await self._call_with_limit(scope, receive, send, limit)

    async def _call_with_limit(self, scope: Scope, receive: Receive, send: Send, limit: "_Limit") -> None:
        started = False
        body = LimitedBody(receive, limit.bytes)

        async def send_unless_over(message: Message) -> None:
            nonlocal started
            if not body.is_over:
                started = True
                await send(message)

        with contextlib.suppress(BodyOverLimit):
            await self.app(scope, body, send_unless_over)
        if body.is_over and not started:
            await _too_large(scope, limit)(scope, receive, send)


def refusal(scope: Scope, status: int, message: str) -> Response:
    """Return an error response, in the format of the compatibility API that the path belongs to, if any."""
    return shims.render_error(scope["path"], status, message) or answer(status, message)


def _too_large(scope: Scope, limit: "_Limit") -> Response:
    response = refusal(scope, 413, f"the request body is larger than {limit.mib} MiB (setting limits.{limit.setting})")
    response.headers["Connection"] = "close"
    return response


class _Limit(NamedTuple):
    """A body size limit and the setting that defines it."""

    setting: str
    mib: int
    fields: int = 0

    @property
    def bytes(self) -> int:
        return self.mib * MIB + self.fields


def _limit(limits: Limits, path: str, content_type: str) -> _Limit:
    if path.endswith("/videos/upload"):
        return _Limit("video_mib", limits.video_mib, VIDEO_FIELDS)
    if content_type.startswith("multipart/") or WORKER_IMAGES.fullmatch(path):
        return _Limit("upload_mib", limits.upload_mib)
    if path.startswith(OWN_API):
        return _Limit("json_mib", limits.json_mib)
    return _Limit("image_json_mib", limits.image_json_mib)


class NoNulCharacters:
    """Responds with 422 to a path or query with a NUL character, which file systems and databases reject."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or call the application."""
        if scope["type"] == "http" and ("\0" in scope["path"] or b"%00" in scope.get("query_string", b"")):
            await refusal(scope, 422, "the URL contains a NUL character")(scope, receive, send)
            return
        await self.app(scope, receive, send)


class SingleSlashes:
    """Removes doubled slashes from paths; clients create them from a base URL that ends in a slash."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with the normalized path."""
        path = scope.get("path", "")
        if "//" in path:
            scope = {**scope, "path": re.sub("/{2,}", "/", path)}
        await self.app(scope, receive, send)


class ImageMoveGuard:
    """Responds with 409 to requests that would read or change image files while they are moved."""

    def __init__(self, app: ASGIApp, resources: Resources) -> None:
        self.app = app
        self.resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or call the application."""
        if self.resources.maintenance and scope["type"] == "http" and _touches_images(scope["method"], scope["path"]):
            await answer(ImagesMoving.status, str(ImagesMoving()))(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _touches_images(method: str, path: str) -> bool:
    if method in SAFE_METHODS:
        return IMAGE_FILES.fullmatch(path) is not None
    return path.startswith(IMAGE_CHANGES) and not path.endswith("/images_by_names")
