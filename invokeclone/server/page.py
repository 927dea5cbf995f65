"""The page at `/`: the official web UI if one is active, otherwise the built-in page, read into memory at start.

Its files are at addresses with a version, the hash of all of them, so that browsers keep them and ask only for the page.
Its modules are sent as one (`page_script.py`), and all files compressed once.
"""

import gzip
import hashlib
import mimetypes
import re
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from invokeclone.server.page_script import join
from invokeclone.server.webui import WebUI

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:{0}; media-src 'self'{0}; connect-src 'self' ws: wss:{0}; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'self'; form-action 'none'"
)
"""The policy; {0} is the origin of presigned URLs of images."""
FOREVER = "public, max-age=31536000, immutable"
SCRIPT = "app.js"
_WITHOUT_ACCOUNTS = re.compile(rb"<link [^>]*\bdata-without-accounts>\n")
COMPRESSIBLE = (".html", ".css", ".js", ".svg", ".webmanifest")


@dataclass(frozen=True)
class File:
    """A file with its gzipped copy and response headers."""

    plain: bytes
    zipped: bytes | None
    headers: dict[str, str]


def _file(name: str, body: bytes, policy: str) -> File:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    is_text = name.endswith(COMPRESSIBLE)
    headers = {
        "Content-Type": f"{kind}; charset=utf-8" if is_text else kind,
        "ETag": f'"{_hash(body)}"',
        "Cache-Control": "no-cache",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "same-origin",
    }
    return File(body, gzip.compress(body, 9, mtime=0) if is_text else None, headers)


def _hash(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=12).hexdigest()


def load(policy: str, *, multiuser: bool) -> tuple[dict[str, File], str]:
    """Return the page's files by name, and their version; the page refers to the others by addresses with it.

    With accounts, the lists that require a sign-in are not preloaded.
    """
    entries = [entry for entry in files(__package__).joinpath("page").iterdir() if entry.is_file()]
    sources = {entry.name: entry.read_bytes() for entry in sorted(entries, key=lambda entry: entry.name)}
    modules = {name.removesuffix(".js"): body.decode() for name, body in sources.items() if name.endswith(".js")}
    bodies = {name: body for name, body in sources.items() if not name.endswith(".js")}
    bodies[SCRIPT] = join(modules, SCRIPT.removesuffix(".js")).encode()
    version = _hash(b"".join(bodies.values()))
    index = bodies["index.html"].replace(b'"page/', f'"page/{version}/'.encode())
    bodies["index.html"] = _WITHOUT_ACCOUNTS.sub(b"", index) if multiuser else index
    return {name: _file(name, body, policy) for name, body in bodies.items()}, version


def router(official: WebUI, media_origin: str | None, *, multiuser: bool) -> APIRouter:
    """Return the routes of the page at `/` and of its files under `/page/`; images may come from `media_origin` too."""
    loaded, version = load(POLICY.format(f" {media_origin}" if media_origin else ""), multiuser=multiuser)

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
        response = send(request, request.path_params["name"])
        if request.path_params.get("version") == version:
            response.headers["Cache-Control"] = FOREVER
        return response

    routes = APIRouter()
    routes.add_route("/page/{name}", part, include_in_schema=False)
    routes.add_route("/page/{version}/{name}", part, include_in_schema=False)
    routes.add_route("/", index, include_in_schema=False)
    return routes
