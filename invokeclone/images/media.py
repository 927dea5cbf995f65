"""Files of images as HTTP answers, kept by browsers for good: a picture never changes under its name.

It knows paths and headers, and no records.
"""

from pathlib import Path

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import FileResponse, Response

KEPT_FOR_A_YEAR = "max-age=31536000"
AT_ONCE = 8 * 1024 * 1024
"""Files up to this size are read in one go, which costs a third of sending them in pieces."""


async def answer(request: Request, path: Path, media_type: str, headers: dict[str, str]) -> Response | None:
    """Return the file as an answer, 304 if the client has it already; None when there is no such file."""
    tag = f'"{path.name}"'
    headers = {"Cache-Control": KEPT_FOR_A_YEAR, "ETag": tag, **headers}
    known = request.headers.get("if-none-match")
    if known is not None and tag in {one.strip().removeprefix("W/") for one in known.split(",")}:
        return Response(status_code=304, headers=headers)
    found = await run_sync(_look, path, request.method == "HEAD")
    if found is None:
        return None
    size, content = found
    if content is not None:
        return Response(content, media_type=media_type, headers=headers)
    if request.method == "HEAD":
        return Response(media_type=media_type, headers={**headers, "Content-Length": str(size)})
    return FileResponse(path, media_type=media_type, headers=headers)


def _look(path: Path, size_only: bool) -> tuple[int, bytes | None] | None:
    """Return the size of a file, and what is in it if that is wanted and not too much."""
    try:
        size = path.stat().st_size
        return size, None if size_only or size > AT_ONCE else path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
