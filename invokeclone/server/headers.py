"""Headers that every answer has: a browser takes nothing for what it is not declared to be, and no cache hands one user's answer to another."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invokeclone.images.media import KEPT_BY_NOBODY

DOCUMENTS = ("text/html", "image/svg+xml", "application/xhtml+xml", "text/xml", "application/xml")
"""Types whose files can hold scripts."""
NO_SCRIPTS = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
API = "/api/"


class SafeHeaders:
    """Adds what an answer lacks: `nosniff`, no scripts in documents of the API, and in multi-user mode no caching."""

    def __init__(self, app: ASGIApp, *, multiuser: bool) -> None:
        self.app = app
        self.multiuser = multiuser

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a `send` that completes the headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._complete(MutableHeaders(scope=message), scope["path"])
            await send(message)

        await self.app(scope, receive, send_completed)

    def _complete(self, headers: MutableHeaders, path: str) -> None:
        headers.setdefault("X-Content-Type-Options", "nosniff")
        if path.startswith(API) and headers.get("content-type", "").split(";")[0].strip() in DOCUMENTS:
            headers.setdefault("Content-Security-Policy", NO_SCRIPTS)
        if self.multiuser:
            headers.setdefault("Cache-Control", KEPT_BY_NOBODY)
