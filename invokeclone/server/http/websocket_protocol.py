"""The protocol of the server's websockets: uvicorn's, with two changes."""

from typing import Any

from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

ABORT = "invokeclone.abort"
"""Name of the ASGI extension whose `abort` closes the transport without a handshake."""
INVALID_DATA = 1007


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Lets the application abort a connection; closes one with text that is not UTF-8 without a traceback in the log."""

    def handle_connect(self, event: Request) -> None:
        """Add the extension."""
        super().handle_connect(event)
        scope: Any = getattr(self, "scope", None)  # there is none after a refused handshake
        if scope is not None:
            scope["extensions"][ABORT] = {"abort": self.transport.abort}

    def send_receive_event_to_app(self) -> None:
        """Pass a complete message on."""
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_utf8(b"".join(self.frames)):
            self.frames = []
            self.conn.send_close(INVALID_DATA)
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def abort(socket: WebSocket) -> None:
    """Close the transport of a connection at once; does nothing on a server without the extension."""
    extension = (socket.scope.get("extensions") or {}).get(ABORT)
    if extension is not None:
        extension["abort"]()
