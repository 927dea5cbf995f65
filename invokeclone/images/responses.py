"""HTTP answers of files of images and videos, their thumbnails, and long lists of names as JSON.

Browsers keep files for good: an image or video never changes under its name.
"""

import re
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from invokeclone.images.encoding.record_images import StoredThumbnail
from invokeclone.images.errors import RangeNotThere
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.process.offload import in_thread

KEPT_FOR_A_YEAR = "max-age=31536000"
KEPT_BY_NOBODY = "private, no-store"
AT_ONCE = 8 * 1024 * 1024
"""Files up to this size are read in one go, which costs a third of sending them in pieces."""

PIECE = 1024 * 1024
"""Bytes that are packed or sent at a time."""

PACKED_FROM = 16 * 1024
ASIDE_FROM = 64 * 1024
"""Bytes from which on packing leaves the event loop."""

GZIP = zlib.MAX_WBITS + 16

PART = 1024 * 1024
RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


def kept(settings: Settings) -> str:
    """Return how long browsers may keep a file: not at all where users sign in, as what one saw is not for the next."""
    return KEPT_BY_NOBODY if settings.multiuser else KEPT_FOR_A_YEAR


def thumbnail(stored: StoredThumbnail, settings: Settings) -> FileResponse:
    """Return the thumbnail of a workflow or a preset as an answer.

    Clients know the type `image/png` here, whatever the file's form; browsers look into the file.
    """
    return FileResponse(
        stored.path,
        media_type="image/png",
        filename=stored.name,
        content_disposition_type="inline",
        headers={"Cache-Control": KEPT_FOR_A_YEAR if stored.bundled else kept(settings)},
    )


async def file(request: Request, path: Path, media_type: str, headers: dict[str, str]) -> Response | None:
    """Return the file as an answer, 304 if the client has it already; None when there is no such file."""
    tag = f'"{path.name}"'
    headers = {"Cache-Control": KEPT_FOR_A_YEAR, "ETag": tag, **headers}
    known = request.headers.get("if-none-match")
    if known is not None and tag in {one.strip().removeprefix("W/") for one in known.split(",")}:
        return Response(status_code=304, headers=headers)
    found = await in_thread(_look, path, request.method == "HEAD")
    if found is None:
        return None
    size, content = found
    if content is not None:
        return Response(content, media_type=media_type, headers=headers)
    if request.method == "HEAD":
        return Response(media_type=media_type, headers={**headers, "Content-Length": str(size)})
    return FileResponse(path, media_type=media_type, headers=headers)


async def part(request: Request, path: Path, media_type: str, headers: dict[str, str]) -> Response | None:
    """Return the file, or the one range of it that is asked for, at most `PART` bytes; None when there is no such file.

    Raises RangeNotThere for a range that is not there, or is none, or is several.
    """
    headers = {"Accept-Ranges": "bytes", "Cache-Control": KEPT_FOR_A_YEAR, **headers}
    wanted = request.headers.get("range")
    condition = request.headers.get("if-range")
    if wanted is None or request.method == "HEAD" or (condition is not None and condition != f'"{path.name}"'):
        return await file(request, path, media_type, headers)
    found = await in_thread(_piece, path, wanted)
    if found is None:
        return None
    start, content, size = found
    shown = {"Content-Range": f"bytes {start}-{start + len(content) - 1}/{size}", "ETag": f'"{path.name}"', **headers}
    return Response(content, 206, shown, media_type)


def _piece(path: Path, wanted: str) -> tuple[int, bytes, int] | None:
    """Return where the asked range starts, what is sent of it, and the size of the file; raises RangeNotThere."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            start, end = _range(wanted, size)
            file.seek(start)
            return start, file.read(end - start), size
    except (FileNotFoundError, NotADirectoryError):
        return None


def _range(wanted: str, size: int) -> tuple[int, int]:
    """Return where the asked range starts, and where the part that is sent of it ends; raises RangeNotThere."""
    found = RANGE.fullmatch(wanted)
    if found is None or found.groups() == ("", ""):
        raise RangeNotThere(size)
    first, last = (int(text) if text else None for text in found.groups())
    if first is None:
        assert last is not None
        first, last = max(0, size - last), size - 1 if last else -1
    end = size if last is None else min(last + 1, size)
    if first >= end:
        raise RangeNotThere(size)
    return first, min(end, first + PART)


def _look(path: Path, size_only: bool) -> tuple[int, bytes | None] | None:
    """Return the size of a file, and what is in it if that is wanted and not too much."""
    try:
        size = path.stat().st_size
        return size, None if size_only or size > AT_ONCE else path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


async def json_pieces(request: Request, found: list[bytes], level: int) -> Response:
    """Return the pieces of a JSON document as an answer, gzipped if they are many and the client and the settings allow.

    All of it is ready before the first piece is sent: a client that reads slowly must not keep the database's log from being
    written back.

    Whatever level is set, names are packed in one way, because they are random letters: looking for repetitions, as gzip does,
    finds none. Huffman coding alone takes an eighth of the time of level 9 (10,000 names: 6 ms against 50) and leaves a tenth
    more bytes.
    """
    headers = {"Vary": "Accept-Encoding"}
    size = sum(map(len, found))
    if level and size >= PACKED_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        found = await in_thread(_packed, found) if size >= ASIDE_FROM else _packed(found)
        size = sum(map(len, found))
    if size <= PIECE:
        return Response(b"".join(found), media_type="application/json", headers=headers)
    headers["Content-Length"] = str(size)
    return StreamingResponse(_each(found), media_type="application/json", headers=headers)


def _pieces(found: Sequence[bytes]) -> Iterator[memoryview]:
    """Yield what is found in pieces that are not too long; nothing is copied."""
    for one in found:
        view = memoryview(one)
        for start in range(0, len(view), PIECE):
            yield view[start : start + PIECE]


def _packed(found: list[bytes]) -> list[bytes]:
    packer = zlib.compressobj(1, zlib.DEFLATED, GZIP, zlib.DEF_MEM_LEVEL, zlib.Z_HUFFMAN_ONLY)
    packed = [packer.compress(piece) for piece in _pieces(found)]
    return [piece for piece in (*packed, packer.flush()) if piece]


async def _each(found: list[bytes]) -> AsyncIterator[memoryview]:
    for piece in _pieces(found):
        yield piece
