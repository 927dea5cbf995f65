"""HTTP responses for image and video files, thumbnails, and long lists of names as JSON.

Browsers may cache files indefinitely: an image or video never changes under its name.
"""

import re
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse

from invokeclone.images.encoding.record_images import StoredThumbnail
from invokeclone.images.errors import RangeNotSatisfiable
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.storage.protocol import StoredFile
from invokeclone.kit.storage.threads import in_storage_thread

CACHE_ONE_YEAR = "max-age=31536000"
NO_STORE = "private, no-store"
MAX_BUFFERED_SIZE = 8 * 1024 * 1024
"""Files up to this size are read at once, which takes a third of the time of sending them in chunks."""

CHUNK_SIZE = 1024 * 1024
"""Bytes per chunk of compressing or sending."""

GZIP_MIN_SIZE = 16 * 1024
OFFLOAD_MIN_SIZE = 64 * 1024
"""Size in bytes from which compression runs off the event loop."""

GZIP = zlib.MAX_WBITS + 16

PRESIGNED_S = 300
"""Seconds that a presigned URL can be used."""

MAX_RANGE_SIZE = 1024 * 1024
RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


def cache_control(settings: Settings) -> str:
    """Return the Cache-Control value: no storage where users sign in, because the next user may not see the file."""
    return NO_STORE if settings.multiuser else CACHE_ONE_YEAR


def content_disposition(name: str) -> str:
    """Return the Content-Disposition value of a file that is shown or stored under its name."""
    quoted = quote(name)
    return f'inline; filename="{name}"' if quoted == name else f"inline; filename*=utf-8''{quoted}"


async def thumbnail(stored: StoredThumbnail, settings: Settings) -> Response:
    """Return the response with the thumbnail of a workflow or a preset.

    InvokeAI's API has the type `image/png` here, whatever the file's format; browsers detect it from the content.
    """
    headers = {"Cache-Control": CACHE_ONE_YEAR if stored.bundled else cache_control(settings)}
    if (path := stored.file.path) is not None:
        return FileResponse(
            path,
            media_type="image/png",
            filename=stored.name,
            content_disposition_type="inline",
            headers=headers,
        )
    headers["Content-Disposition"] = f'inline; filename="{stored.name}"'
    return Response(await in_storage_thread(stored.file.read), media_type="image/png", headers=headers)


async def redirect_to_storage(request: Request, stored: StoredFile, settings: Settings) -> Response | None:
    """Return a redirect to a URL at which the client reads the file; None if this server sends it.

    HEAD requests, and those of clients that have the file, are answered by this server.
    """
    if settings.storage_reads != "presigned" or request.method == "HEAD" or "if-none-match" in request.headers:
        return None
    url = await in_storage_thread(stored.storage.presign, stored.key, PRESIGNED_S)
    if url is None:
        return None
    cached = NO_STORE if settings.multiuser else f"private, max-age={PRESIGNED_S // 2}"
    return RedirectResponse(url, 307, {"Cache-Control": cached})


async def file(request: Request, stored: StoredFile, media_type: str, headers: dict[str, str]) -> Response | None:
    """Return the response with a file, 304 if the client has it already; None when the file does not exist."""
    tag = f'"{stored.name}"'
    headers = {"Cache-Control": CACHE_ONE_YEAR, "ETag": tag, **headers}
    client_tags = request.headers.get("if-none-match")
    if client_tags is not None and tag in {value.strip().removeprefix("W/") for value in client_tags.split(",")}:
        return Response(status_code=304, headers=headers)
    result = await in_storage_thread(_read_small, stored, request.method == "HEAD")
    if result is None:
        return None
    if result.is_whole:
        return Response(result.content, media_type=media_type, headers=headers)
    if (path := stored.path) is not None and request.method != "HEAD":
        return FileResponse(path, media_type=media_type, headers=headers)
    headers["Content-Length"] = str(result.size)
    if request.method == "HEAD":
        return Response(media_type=media_type, headers=headers)
    return StreamingResponse(_stream(stored, result), media_type=media_type, headers=headers)


async def part(request: Request, stored: StoredFile, media_type: str, headers: dict[str, str]) -> Response | None:
    """Return the response with a file, or its requested range of at most `MAX_RANGE_SIZE` bytes; None without a file.

    Raises RangeNotSatisfiable for a range outside the file, an invalid one, or several.
    """
    headers = {"Accept-Ranges": "bytes", "Cache-Control": CACHE_ONE_YEAR, **headers}
    range_header = request.headers.get("range")
    condition = request.headers.get("if-range")
    if range_header is None or request.method == "HEAD" or (condition is not None and condition != f'"{stored.name}"'):
        return await file(request, stored, media_type, headers)
    result = await in_storage_thread(_read_range, stored, range_header)
    if result is None:
        return None
    start, content, size = result
    range_headers = {
        "Content-Range": f"bytes {start}-{start + len(content) - 1}/{size}",
        "ETag": f'"{stored.name}"',
        **headers,
    }
    return Response(content, 206, range_headers, media_type)


class _Beginning(NamedTuple):
    """The beginning of a file, and the size of the whole."""

    content: bytes
    size: int

    @property
    def is_whole(self) -> bool:
        """Whether the content is the whole file."""
        return len(self.content) == self.size


def _read_small(stored: StoredFile, size_only: bool) -> _Beginning | None:
    """Return the size of a file, and its content unless `size_only` or it is too large; None when it does not exist."""
    try:
        if (path := stored.path) is not None:
            size = path.stat().st_size
            return _Beginning(b"" if size_only or size > MAX_BUFFERED_SIZE else path.read_bytes(), size)
        if size_only:
            return _Beginning(b"", stored.stat().size)
        return _Beginning(*stored.storage.get_range(stored.key, 0, MAX_BUFFERED_SIZE))
    except (FileNotFoundError, NotADirectoryError):
        return None


async def _stream(stored: StoredFile, beginning: _Beginning) -> AsyncIterator[bytes]:
    """Yield a file of a storage without local files, a part at a time."""
    start, content = 0, beginning.content
    while content:
        yield content
        start += len(content)
        content = b""
        if start < beginning.size:
            content, _ = await in_storage_thread(stored.storage.get_range, stored.key, start, start + MAX_BUFFERED_SIZE)


def _read_range(stored: StoredFile, range_header: str) -> tuple[int, bytes, int] | None:
    """Return the start of the range, its bytes, and the size of the file; raises RangeNotSatisfiable."""
    try:
        return _request_range(stored, range_header)
    except FileNotFoundError:
        return None


def _request_range(stored: StoredFile, range_header: str) -> tuple[int, bytes, int]:
    """Return what `_read_range` does, with one request of the storage unless the range depends on the size."""
    match = RANGE.fullmatch(range_header)
    first, last = match.groups() if match else ("", "")
    if first:
        start, end = int(first), int(last) + 1 if last else int(first) + MAX_RANGE_SIZE
    else:
        end = stored.stat().size
        start = max(0, end - int(last)) if last else end
    content, size = stored.storage.get_range(stored.key, start, min(end, start + MAX_RANGE_SIZE))
    if not content:
        raise RangeNotSatisfiable(size)
    return start, content, size


async def json_pieces(request: Request, pieces: list[bytes], level: int) -> Response:
    """Return the response with a JSON document in pieces, gzipped if large and if client and settings allow it.

    The document is complete before the first piece is sent: a client that reads slowly must not hold a read
    transaction, which would block WAL checkpoints.

    The compression level is fixed because names are random letters without repetitions for gzip to find. Huffman
    coding alone takes an eighth of the time of level 9 (10,000 names: 6 ms against 50) for a tenth more bytes.
    """
    headers = {"Vary": "Accept-Encoding"}
    size = sum(map(len, pieces))
    if level and size >= GZIP_MIN_SIZE and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        pieces = await in_thread(_compress, pieces) if size >= OFFLOAD_MIN_SIZE else _compress(pieces)
        size = sum(map(len, pieces))
    if size <= CHUNK_SIZE:
        return Response(b"".join(pieces), media_type="application/json", headers=headers)
    headers["Content-Length"] = str(size)
    return StreamingResponse(_iterate(pieces), media_type="application/json", headers=headers)


def _pieces(pieces: Sequence[bytes]) -> Iterator[memoryview]:
    """Split pieces into chunks of at most `CHUNK_SIZE` without copying."""
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), CHUNK_SIZE):
            yield view[start : start + CHUNK_SIZE]


def _compress(pieces: list[bytes]) -> list[bytes]:
    packer = zlib.compressobj(1, zlib.DEFLATED, GZIP, zlib.DEF_MEM_LEVEL, zlib.Z_HUFFMAN_ONLY)
    packed = [packer.compress(piece) for piece in _pieces(pieces)]
    return [piece for piece in (*packed, packer.flush()) if piece]


async def _iterate(pieces: list[bytes]) -> AsyncIterator[memoryview]:
    for piece in _pieces(pieces):
        yield piece
