"""Handling of clients that disconnect before the response: logged at debug level, without a traceback."""

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invokeclone.kit import log

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
        has_left = False

        async def noting_receive() -> Message:
            nonlocal has_left
            message = await receive()
            has_left = has_left or message["type"] == "http.disconnect"
            return message

        async def noting_send(message: Message) -> None:
            nonlocal has_left
            try:
                await send(message)
            except OSError:
                has_left = True
                raise

        try:
            await self.app(scope, noting_receive, noting_send)
        except Exception as error:
            if not has_left and not isinstance(error, ClientDisconnect):
                raise
            _log.debug("%s %s: the client disconnected: %s", scope["method"], scope["path"], type(error).__name__)
