"""The page at `/`: the official web UI if one is active, otherwise the built-in page, read into memory at start."""

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from invokeclone.server.webui import WebUI

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; connect-src 'self' ws: wss:; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'self'; form-action 'none'"
)
COMPRESSIBLE = (".html", ".css", ".js", ".svg", ".webmanifest")


@dataclass(frozen=True)
class _File:
    """A file with its gzipped copy and response headers."""

    plain: bytes
    zipped: bytes | None
    headers: dict[str, str]


def _load() -> dict[str, _File]:
    page_files = {}
    for entry in files(__package__).joinpath("page").iterdir():
        if not entry.is_file() or entry.name.endswith(".py"):
            continue
        body = entry.read_bytes()
        kind = mimetypes.guess_type(entry.name)[0] or "application/octet-stream"
        page_files[entry.name] = _File(
            body,
            gzip.compress(body, 9, mtime=0) if entry.name.endswith(COMPRESSIBLE) else None,
            {
                "Content-Type": f"{kind}; charset=utf-8" if entry.name.endswith(COMPRESSIBLE) else kind,
                "ETag": f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"',
                "Cache-Control": "no-cache",
                "Vary": "Accept-Encoding",
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": POLICY,
                "Referrer-Policy": "same-origin",
            },
        )
    return page_files


def router(official: WebUI) -> APIRouter:
    """Return the routes of the page at `/` and of its files under `/page/`."""
    loaded = _load()

    def send(request: Request, name: str) -> Response:
        file = loaded.get(name)
        if file is None:
            raise HTTPException(404)
        if file.headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(
                status_code=304, headers={key: file.headers[key] for key in ("ETag", "Cache-Control", "Vary")}
            )
        if file.zipped is not None and "gzip" in request.headers.get("accept-encoding", ""):
            return Response(file.zipped, headers=file.headers | {"Content-Encoding": "gzip"})
        return Response(file.plain, headers=file.headers)

    async def index(request: Request) -> Response:
        return await official.index(request) or send(request, "index.html")

    async def part(request: Request) -> Response:
        return send(request, request.path_params["name"])

    routes = APIRouter()
    routes.add_route("/page/{name}", part, include_in_schema=False)
    routes.add_route("/", index, include_in_schema=False)
    return routes
