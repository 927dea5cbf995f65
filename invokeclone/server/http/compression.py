"""Compressed request bodies (gzip, deflate): decompressed as they are read, before their size is limited."""

import asyncio
import contextlib
import zlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invokeclone.kit.errors import BadRequest
from invokeclone.server.http.guards import SAFE_METHODS, refusal

ENCODINGS = ("gzip", "x-gzip", "deflate")
SLICE_BYTES = 256 * 1024
"""Decompressed bytes that are passed on at a time."""
SLACK_BYTES = 64 * 1024
"""Compressed bytes that may be read beyond the decompressed ones; valid data of any use is not larger compressed."""
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class CompressedBodies:
    """Decompresses bodies. Responds with 415 to other encodings, and with 400 to invalid data."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with the decompressed body."""
        encoding = Headers(scope=scope).get("content-encoding", "") if scope["type"] == "http" else ""
        encoding = encoding.strip().lower()
        if encoding in {"", "identity"} or scope["method"] in SAFE_METHODS:
            await self.app(scope, receive, send)
        elif encoding in ENCODINGS:
            await self._call_decompressed(scope, receive, send)
        else:
            message = f"the content encoding {encoding[:40]!r} is not accepted: use gzip or deflate, or none"
            response = refusal(scope, 415, message)
            response.headers["Accept-Encoding"] = "gzip, deflate"
            await response(scope, receive, send)

    async def _call_decompressed(self, scope: Scope, receive: Receive, send: Send) -> None:
        dropped = (b"content-encoding", b"content-length")
        plain_headers = [(name, value) for name, value in scope["headers"] if name.lower() not in dropped]
        body = _DecompressedBody(receive)
        is_started = False

        async def send_unless_invalid(message: Message) -> None:
            nonlocal is_started
            if not body.is_invalid:
                is_started = True
                await send(message)

        with contextlib.suppress(_InvalidData):
            await self.app({**scope, "headers": plain_headers}, body, send_unless_invalid)
        if body.is_invalid and not is_started:
            response = refusal(scope, 400, "the body is not valid in its content encoding")
            response.headers["Connection"] = "close"
            await response(scope, receive, send)


class _InvalidData(BadRequest):
    """The body is not valid in its encoding."""


class _DecompressedBody:
    """A request's `receive` whose body is decompressed in slices."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._input = b""
        """Compressed bytes that are not decompressed yet."""
        self._has_output = False
        """Whether the decompressor may have more to return without further input."""
        self._is_last = False
        """Whether the whole compressed body has been read."""
        self._read_bytes = self._returned_bytes = 0
        self.is_invalid = False

    async def __call__(self) -> Message:
        """Return the next message. Raises _InvalidData."""
        if self._input or self._has_output:
            await asyncio.sleep(0)
        else:
            message = await self._receive()
            if message["type"] != "http.request" or self._is_last:
                return message
            self._input = message.get("body", b"")
            self._read_bytes += len(self._input)
            self._is_last = not message.get("more_body", False)
        try:
            data = self._decompress()
        except (zlib.error, _InvalidData) as error:
            self.is_invalid = True
            raise _InvalidData from error
        has_more = bool(self._input) or self._has_output or not self._is_last
        return {"type": "http.request", "body": data, "more_body": has_more}

    def _decompress(self) -> bytes:
        """Return the next slice. Raises zlib.error, and _InvalidData for truncated and for useless data."""
        data = self._decompressor.decompress(self._input, SLICE_BYTES)
        self._returned_bytes += len(data)
        self._input = self._decompressor.unconsumed_tail
        self._has_output = len(data) == SLICE_BYTES and not self._decompressor.eof
        if self._decompressor.eof:
            self._input = self._decompressor.unused_data
            if self._input:  # a further member of a gzip file
                self._decompressor = zlib.decompressobj(_GZIP_OR_ZLIB)
        is_truncated = self._is_last and not (self._decompressor.eof or self._input or self._has_output)
        if is_truncated and self._read_bytes:
            raise _InvalidData
        if self._read_bytes - len(self._input) - self._returned_bytes > SLACK_BYTES:
            raise _InvalidData
        return data
