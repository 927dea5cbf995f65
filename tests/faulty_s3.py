"""An S3 service that misbehaves: a proxy before the one of the tests, which damages the answers to chosen requests."""

import contextlib
import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


@dataclass
class Answer:
    """An answer of the service, which faults change before it is sent."""

    status: int
    headers: dict[str, str]
    body: bytes
    sent: float = 1.0
    """The part of the body that is sent before the connection is closed."""
    is_reset: bool = False
    delay_s: float = 0.0


Fault = Callable[[Answer], None]


def error(status: int, code: str) -> Fault:
    """Answer with an error; the service has run the request, as after a failure on the way."""

    def change(answer: Answer) -> None:
        answer.status, answer.headers = status, {"Content-Type": "application/xml"}
        answer.body = f"<Error><Code>{code}</Code><Message>a fault</Message></Error>".encode()

    return change


def truncated(answer: Answer) -> None:
    answer.sent = 0.5


def reset(answer: Answer) -> None:
    answer.sent, answer.is_reset = 0.5, True


def lost(answer: Answer) -> None:
    """Close the connection without an answer."""
    answer.sent = -1


def slow(answer: Answer) -> None:
    answer.delay_s = 2.0


def short(answer: Answer) -> None:
    """Send half of the content as if it was all of the range."""
    answer.body = answer.body[: len(answer.body) // 2]


def empty(answer: Answer) -> None:
    answer.body = b""


def wrong_etag(answer: Answer) -> None:
    if "ETag" in answer.headers:
        answer.headers["ETag"] = '"00000000000000000000000000000000"'


def garbage(answer: Answer) -> None:
    answer.status, answer.headers, answer.body = 200, {"Content-Type": "text/html"}, b"<html>Sign in</html>"


@dataclass
class FaultyService:
    """The proxy. `fault` changes the answers of requests of which `affects` is true, `times` of them at most."""

    target: str
    endpoint: str = ""
    fault: Fault | None = None
    affects: Callable[[str, str], bool] = lambda _method, _path: True
    times: int = 10**9
    runs_refused: bool = True
    """Whether the service runs the requests whose answers are changed."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def failing(
        self, fault: Fault, *, times: int = 10**9, runs: bool = True, method: str = "", path: str = ""
    ) -> Iterator[None]:
        """Let requests fail in the block."""
        self.times, self.runs_refused, self.fault = times, runs, fault
        self.affects = lambda of, at: method in ("", of) and path in at
        try:
            yield
        finally:
            self.fault = None

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests.append((method, path))
            if self.fault is None or self.times <= 0 or not self.affects(method, path):
                return None
            self.times -= 1
            return self.fault

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        parts = urlsplit(self.target)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            kept = {name: value for name, value in response.getheaders() if name.lower() not in HOP}
            answer = Answer(response.status, kept, response.read())
            if method == "HEAD":
                answer.headers["Content-Length"] = response.headers["Content-Length"] or "0"
            return answer
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: FaultyService

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.service.take_fault(self.command, self.path)
        if fault is None or self.service.runs_refused:
            answer = self.service.forward(self.command, self.path, dict(self.headers.items()), body)
        else:
            answer = Answer(500, {}, b"")
        if fault is not None:
            fault(answer)
        time.sleep(answer.delay_s)
        if answer.sent < 0:
            self.close_connection = True
            return
        try:
            self._send(answer)
        except OSError:  # the client has given up
            self.close_connection = True

    def _send(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: int(len(answer.body) * answer.sent)])
        if answer.sent < 1:
            self.close_connection = True
        if answer.is_reset:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle

    def log_message(self, *_arguments: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().handle_one_request()
            return
        self.close_connection = True

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the connection was reset
            super().finish()


@contextlib.contextmanager
def serve(target: str) -> Iterator[FaultyService]:
    service = FaultyService(target)
    handler = type("Handler", (_Handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    service.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
