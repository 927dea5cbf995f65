"""Token renewal: successful writes of a signed-in user return a fresh token in a response header.

ASGI middleware that reads the `sign_in` that the authentication dependency stored in the request state.
"""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invokeclone.users.signin import SignIn

HEADER = "X-Refreshed-Token"
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
EXCLUDED_PATHS = ("/auth/login", "/auth/logout", "/auth/media-cookie")
FAILED_FROM = 400


class TokenRenewal:
    """Adds a new token to every successful response to a write request that had a token."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application and add the header to its response."""
        if scope["type"] != "http" or scope["method"] not in CHANGING or scope["path"].endswith(EXCLUDED_PATHS):
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def renewing_send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < FAILED_FROM:
                sign_in = state.get("sign_in")
                if isinstance(sign_in, SignIn):
                    MutableHeaders(scope=message)[HEADER] = sign_in.token()
            await send(message)

        await self.app(scope, receive, renewing_send)
