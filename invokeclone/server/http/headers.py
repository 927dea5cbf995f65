"""Security headers of all responses: no MIME sniffing, no scripts in API documents, no caching with accounts."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invokeclone.images.responses import NO_STORE

DOCUMENTS = (b"text/html", b"image/svg+xml", b"application/xhtml+xml", b"text/xml", b"application/xml")
"""Media types whose files can contain scripts."""
NO_SCRIPTS = b"sandbox; default-src 'none'; style-src 'unsafe-inline'"
API = "/api/"
NOSNIFF = (b"x-content-type-options", b"nosniff")


class SafeHeaders:
    """Adds missing headers: `nosniff`, a CSP without scripts for API documents, and no caching in multi-user mode."""

    def __init__(self, app: ASGIApp, *, multiuser: bool) -> None:
        self.app = app
        self.multiuser = multiuser

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with a `send` that adds the headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._complete(message, scope["path"])
            await send(message)

        await self.app(scope, receive, send_completed)

    def _complete(self, message: Message, path: str) -> None:
        headers = list(message.get("headers", ()))
        present = dict(headers)
        if NOSNIFF[0] not in present:
            headers.append(NOSNIFF)
        kind = present.get(b"content-type", b"").partition(b";")[0].strip()
        if path.startswith(API) and kind in DOCUMENTS and b"content-security-policy" not in present:
            headers.append((b"content-security-policy", NO_SCRIPTS))
        if self.multiuser and b"cache-control" not in present:
            headers.append((b"cache-control", NO_STORE.encode()))
        message["headers"] = headers
