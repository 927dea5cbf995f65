"""HTTP responses for image and video files, thumbnails, and long lists of names as JSON.

Browsers may cache files indefinitely: an image or video never changes under its name.
"""

import re
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from invokeclone.images.encoding.record_images import StoredThumbnail
from invokeclone.images.errors import RangeNotSatisfiable
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.process.offload import in_thread

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

MAX_RANGE_SIZE = 1024 * 1024
RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


def cache_control(settings: Settings) -> str:
    """Return the Cache-Control value: no storage where users sign in, because the next user may not see the file."""
    return NO_STORE if settings.multiuser else CACHE_ONE_YEAR


def thumbnail(stored: StoredThumbnail, settings: Settings) -> FileResponse:
    """Return the response with the thumbnail of a workflow or a preset.

    InvokeAI's API has the type `image/png` here, whatever the file's format; browsers detect it from the content.
    """
    return FileResponse(
        stored.path,
        media_type="image/png",
        filename=stored.name,
        content_disposition_type="inline",
        headers={"Cache-Control": CACHE_ONE_YEAR if stored.bundled else cache_control(settings)},
    )


async def file(request: Request, path: Path, media_type: str, headers: dict[str, str]) -> Response | None:
    """Return the response with a file, 304 if the client has it already; None when the file does not exist."""
    tag = f'"{path.name}"'
    headers = {"Cache-Control": CACHE_ONE_YEAR, "ETag": tag, **headers}
    client_tags = request.headers.get("if-none-match")
    if client_tags is not None and tag in {value.strip().removeprefix("W/") for value in client_tags.split(",")}:
        return Response(status_code=304, headers=headers)
    result = await in_thread(_read_small, path, request.method == "HEAD")
    if result is None:
        return None
    size, content = result
    if content is not None:
        return Response(content, media_type=media_type, headers=headers)
    if request.method == "HEAD":
        return Response(media_type=media_type, headers={**headers, "Content-Length": str(size)})
    return FileResponse(path, media_type=media_type, headers=headers)


async def part(request: Request, path: Path, media_type: str, headers: dict[str, str]) -> Response | None:
    """Return the response with a file, or its requested range of at most `MAX_RANGE_SIZE` bytes; None without a file.

    Raises RangeNotSatisfiable for a range outside the file, an invalid one, or several.
    """
    headers = {"Accept-Ranges": "bytes", "Cache-Control": CACHE_ONE_YEAR, **headers}
    range_header = request.headers.get("range")
    condition = request.headers.get("if-range")
    if range_header is None or request.method == "HEAD" or (condition is not None and condition != f'"{path.name}"'):
        return await file(request, path, media_type, headers)
    result = await in_thread(_read_range, path, range_header)
    if result is None:
        return None
    start, content, size = result
    range_headers = {
        "Content-Range": f"bytes {start}-{start + len(content) - 1}/{size}",
        "ETag": f'"{path.name}"',
        **headers,
    }
    return Response(content, 206, range_headers, media_type)


def _read_range(path: Path, range_header: str) -> tuple[int, bytes, int] | None:
    """Return the start of the range, its bytes, and the size of the file; raises RangeNotSatisfiable."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            start, end = _parse_range(range_header, size)
            file.seek(start)
            return start, file.read(end - start), size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _parse_range(range_header: str, size: int) -> tuple[int, int]:
    """Return the start and the end of the part of the range to send; raises RangeNotSatisfiable."""
    match = RANGE.fullmatch(range_header)
    if match is None or match.groups() == ("", ""):
        raise RangeNotSatisfiable(size)
    first, last = (int(text) if text else None for text in match.groups())
    if first is None:
        assert last is not None
        first, last = max(0, size - last), size - 1 if last else -1
    end = size if last is None else min(last + 1, size)
    if first >= end:
        raise RangeNotSatisfiable(size)
    return first, min(end, first + MAX_RANGE_SIZE)


def _read_small(path: Path, size_only: bool) -> tuple[int, bytes | None] | None:
    """Return the size of a file, and its content unless `size_only` or it is too large."""
    try:
        size = path.stat().st_size
        return size, None if size_only or size > MAX_BUFFERED_SIZE else path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


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
