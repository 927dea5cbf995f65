"""The official web UI, where one is installed: which bundle is in use, and sending its files.

A bundle is a folder `<root>/webui/VERSION` of static files that `invokeclone webui install` put there; `<root>/webui/active`
names the one in use. The choice is read again whenever that file changes, so a running server follows it. Nothing here knows
what the UI does.
"""

import os
import re
import stat
from pathlib import Path, PurePosixPath

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from invokeclone.kit.process.offload import in_thread

INDEX = "index.html"
ACTIVE = "active"
VERSION = re.compile(r"[0-9]+(\.[0-9]+){1,3}([a-z]+[0-9]+)?(\.post[0-9]+)?")
"""What a version may look like: it becomes a folder's name and a requirement of pip."""

NOT_PAGES = frozenset(
    {
        *("api", "ws", "page", "health", "openapi.json", "docs", "redoc"),  # ours
        *("v1", "v1beta", "openai", "sdapi", "controlnet", "internal", "prompt", "queue", "history"),  # other dialects'
        *("comfyui", "object_info", "system_stats", "view", "upload", "interrupt", "free", "embeddings"),  # ComfyUI's
        *("models", "extensions", "features"),  # likewise
    }
)
"""First parts of addresses that are never a page of the UI; what is unknown below them is a JSON 404."""

FRESH = {"Cache-Control": "no-cache, no-store, must-revalidate, max-age=0", "Pragma": "no-cache", "Expires": "0"}
LASTING = {"Cache-Control": "public, max-age=31536000, immutable"}


def folder(root: Path) -> Path:
    """Return where the bundles of `root` lie."""
    return root / "webui"


def list_versions(root: Path) -> list[str]:
    """Return the installed versions, oldest first."""
    base = folder(root)
    if not base.is_dir():
        return []
    versions = [entry.name for entry in base.iterdir() if VERSION.fullmatch(entry.name) and (entry / INDEX).is_file()]
    return sorted(versions, key=lambda name: [int(part) for part in re.findall(r"[0-9]+", name)])


def active_version(root: Path) -> str | None:
    """Return the version in use; None: our own page."""
    try:
        name = (folder(root) / ACTIVE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if VERSION.fullmatch(name) and (folder(root) / name / INDEX).is_file() else None


def activate(root: Path, version: str | None) -> None:
    """Put `version` into use, or our own page for None."""
    path = folder(root) / ACTIVE
    if version is None:
        path.unlink(missing_ok=True)
        return
    partial = path.with_suffix(".partial")
    partial.write_text(f"{version}\n", encoding="utf-8")
    partial.replace(path)


class Bundle(StaticFiles):
    """One bundle's files, each sent compressed where a compressed copy lies beside it."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Send a file; a page of the UI's own making gets the index."""
        response = await super().get_response(path, scope)
        response.headers.update(LASTING if path.startswith("assets/") else FRESH)
        return response

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,  # noqa: ARG002  (of the plain copy)
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Choose the compressed copy for those who take it."""
        request_headers = Headers(scope=scope)
        path = Path(full_path)
        zipped = path.with_name(f"{path.name}.gz")
        headers = {"X-Content-Type-Options": "nosniff"}
        sent = path
        if zipped.is_file():
            headers["Vary"] = "Accept-Encoding"
            if "gzip" in request_headers.get("accept-encoding", ""):
                headers["Content-Encoding"] = "gzip"
                sent = zipped
        response = FileResponse(
            sent, status_code=status_code, headers=headers, media_type=_media_type(path), stat_result=sent.stat()
        )
        if self.is_not_modified(response.headers, request_headers):
            return NotModifiedResponse(response.headers)
        return response


def _media_type(path: Path) -> str | None:
    """Name the types that a machine's own table may get wrong; a browser refuses a script of another type."""
    return {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}.get(path.suffix)


class WebUI:
    """Answers with the bundle in use."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stamp: tuple[int, int] | None = None
        self._bundle: Bundle | None = None

    def bundle(self) -> Bundle | None:
        """Return the bundle in use, looking again when the choice has changed."""
        try:
            status = (folder(self._root) / ACTIVE).stat()
            stamp = (status.st_mtime_ns, status.st_ino)
        except OSError:
            self._stamp = self._bundle = None
            return None
        if stamp != self._stamp:
            version = active_version(self._root)
            self._bundle = None if version is None else Bundle(directory=folder(self._root) / version)
            self._stamp = stamp
        return self._bundle

    async def index(self, request: Request) -> Response | None:
        """Return the bundle's first page; None: no bundle is in use."""
        bundle = self.bundle()
        return None if bundle is None else await bundle.get_response(INDEX, request.scope)

    def with_fallback(self, not_found: ASGIApp) -> ASGIApp:
        """Return the application for addresses that no route knows: the bundle's files and pages, else `not_found`."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            response = await self._answer(scope) if scope["type"] == "http" else None
            await (response or not_found)(scope, receive, send)

        return answer

    async def _answer(self, scope: Scope) -> Response | None:
        if scope["method"] not in ("GET", "HEAD"):
            return None
        path = scope["path"].lstrip("/")
        if path.split("/", 1)[0] in NOT_PAGES:
            return None
        bundle = self.bundle()
        if bundle is None:
            return None
        _path, status = await in_thread(bundle.lookup_path, path)
        if status is not None and stat.S_ISREG(status.st_mode):
            return await bundle.get_response(path, scope)
        parts = PurePosixPath(path)
        is_page = (
            not parts.suffix and ".." not in parts.parts and parts.parts[:1] not in ((), ("assets",), ("locales",))
        )
        if is_page and "text/html" in Headers(scope=scope).get("accept", ""):
            return await bundle.get_response(INDEX, scope)
        return None
