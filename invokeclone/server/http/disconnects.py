"""Handling of clients that disconnect before the response: logged at debug level, without a traceback."""

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invokeclone.kit import log
from invokeclone.kit.requests import WatchedReceive

_log = log.get("server")


class ClientDisconnects:
    """Suppresses the errors of requests whose client has disconnected."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application; errors after a disconnect are logged, not raised."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        watched = WatchedReceive(receive)

        async def noting_send(message: Message) -> None:
            try:
                await send(message)
            except OSError:
                watched.has_left = True
                raise

        try:
            await self.app(scope, watched, noting_send)
        except Exception as error:
            if not watched.has_left and not isinstance(error, ClientDisconnect):
                raise
            _log.debug("%s %s: the client disconnected: %s", scope["method"], scope["path"], type(error).__name__)
