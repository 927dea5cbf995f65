"""The official web UI: selection of the active bundle, and serving its files.

A bundle is a folder `<root>/webui/VERSION` of static files, created by `invokeclone webui install`;
`<root>/webui/active` names the active one. A running server notices when that file changes.
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
"""Valid version strings; the version is used as a folder name and in a pip requirement."""

NOT_PAGES = frozenset(
    {
        *("api", "ws", "page", "health", "openapi.json", "docs", "redoc"),  # ours
        *("v1", "v1beta", "openai", "sdapi", "controlnet", "internal", "prompt", "queue", "history"),  # other APIs
        *("comfyui", "object_info", "system_stats", "view", "upload", "interrupt", "free", "embeddings"),  # ComfyUI
        *(
            "models",
            "extensions",
            "features",
            "users",
            "settings",
            "userdata",
            "experiment",
            "view_metadata",
            "v2",
        ),  # ComfyUI
    }
)
"""First path segments that are never pages of the UI; unknown paths below them get a JSON 404."""

FRESH = {"Cache-Control": "no-cache, no-store, must-revalidate, max-age=0", "Pragma": "no-cache", "Expires": "0"}
LASTING = {"Cache-Control": "public, max-age=31536000, immutable"}


def folder(root: Path) -> Path:
    """Return the folder of the bundles."""
    return root / "webui"


def list_versions(root: Path) -> list[str]:
    """Return the installed versions, oldest first."""
    base = folder(root)
    if not base.is_dir():
        return []
    versions = [entry.name for entry in base.iterdir() if VERSION.fullmatch(entry.name) and (entry / INDEX).is_file()]
    return sorted(versions, key=lambda name: [int(part) for part in re.findall(r"[0-9]+", name)])


def active_version(root: Path) -> str | None:
    """Return the active version; None means the built-in page."""
    try:
        name = (folder(root) / ACTIVE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return name if VERSION.fullmatch(name) and (folder(root) / name / INDEX).is_file() else None


def activate(root: Path, version: str | None) -> None:
    """Activate `version`, or the built-in page for None."""
    path = folder(root) / ACTIVE
    if version is None:
        path.unlink(missing_ok=True)
        return
    partial = path.with_suffix(".partial")
    partial.write_text(f"{version}\n", encoding="utf-8")
    partial.replace(path)


class Bundle(StaticFiles):
    """Serves the files of one bundle, compressed where a `.gz` copy exists."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with the cache headers of its kind."""
        response = await super().get_response(path, scope)
        response.headers.update(LASTING if path.startswith("assets/") else FRESH)
        return response

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,  # noqa: ARG002  (of the uncompressed file)
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return the compressed copy if the client accepts it."""
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
    """Return the media type of scripts, which the OS's table may get wrong; browsers refuse scripts of another type."""
    return {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}.get(path.suffix)


class WebUI:
    """Serves the active bundle."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stamp: tuple[int, int] | None = None
        self._bundle: Bundle | None = None

    def bundle(self) -> Bundle | None:
        """Return the active bundle, reloaded when the `active` file has changed."""
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
        """Return the bundle's index page; None if no bundle is active."""
        bundle = self.bundle()
        return None if bundle is None else await bundle.get_response(INDEX, request.scope)

    def with_fallback(self, not_found: ASGIApp) -> ASGIApp:
        """Return an application for paths without a route: the bundle's files and pages, otherwise `not_found`."""

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
