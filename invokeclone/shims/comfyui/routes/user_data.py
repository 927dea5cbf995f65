"""Routes of users, their settings and their files.

The account that sends a request decides whose files they are; the header `Comfy-User` is ignored.
"""

import mimetypes
import urllib.parse
from typing import Any

from fastapi import Request, Response

from invokeclone.kit.errors import Forbidden
from invokeclone.kit.requests import Needs, Read, Write
from invokeclone.shims.comfyui.files import user_data
from invokeclone.shims.comfyui.files.names import normalize_path
from invokeclone.shims.comfyui.files.user_data import UserFile, UserFileMissing
from invokeclone.shims.comfyui.history import milliseconds
from invokeclone.shims.comfyui.routes.routing import query_flag, routes
from invokeclone.shims.compat_api import RequestRejected, json_response, read_value
from invokeclone.users.caller import Caller

MOVE = "move"
MAX_SETTING_ID_LENGTH = 500
STYLE_SHEET = "user.css"
"""The only file that a page may load directly."""
INERT_TYPES = ("application/json", "text/plain", "image/png", "image/jpeg", "image/webp", "image/gif")
"""Media types that files are served as; all others, which a browser might run, are bytes."""


# Users


@routes.get("/users")
async def get_users(user: Caller, needs: Needs) -> Response:
    """Get where settings are stored: on the server, for the account that asks."""
    users: dict[str, Any] = (
        {"users": {user.user_id: user.display_name or user.email}} if needs.settings.multiuser else {"migrated": True}
    )
    return json_response({"storage": "server", **users})


class NoNewUsers(Forbidden):
    """Accounts are not created through this API."""


@routes.post("/users")
async def post_users(_user: Caller) -> Response:
    """Refuse: accounts are created by an administrator, not through this API."""
    raise NoNewUsers("accounts are created by an administrator: `invokeclone user add`")


# Settings


@routes.get("/settings")
async def get_settings(user: Caller, needs: Needs, connection: Read) -> Response:
    """Get the caller's settings."""
    return json_response(await user_data.read_settings(connection, user, needs.settings.limits))


@routes.get("/settings/{id:path}")
async def get_setting(user: Caller, needs: Needs, connection: Read, id: str) -> Response:  # noqa: A002  (the API's name)
    """Get one of the caller's settings, or null."""
    return json_response((await user_data.read_settings(connection, user, needs.settings.limits)).get(id))


@routes.post("/settings")
async def post_settings(request: Request, user: Caller, needs: Needs) -> Response:
    """Change some of the caller's settings."""
    changes = await read_value(request)
    if not isinstance(changes, dict):
        raise RequestRejected("the body must be a JSON object")
    async with needs.database.write() as connection:
        await user_data.change_settings(connection, user, changes, needs.settings.limits)
    return Response()


@routes.post("/settings/{id:path}")
async def post_setting(request: Request, user: Caller, needs: Needs, id: str) -> Response:  # noqa: A002
    """Change one of the caller's settings."""
    if not id or len(id) > MAX_SETTING_ID_LENGTH:
        raise RequestRejected(f"must have 1 to {MAX_SETTING_ID_LENGTH} characters", "id")
    changes = {id: await read_value(request)}
    async with needs.database.write() as connection:
        await user_data.change_settings(connection, user, changes, needs.settings.limits)
    return Response()


# Files


@routes.get("/userdata")
async def list_user_data(request: Request, user: Caller, connection: Read) -> Response:
    """List the files in a folder of the caller's: `dir`, `recurse`, `split` paths, `full_info`."""
    folder = normalize_path(request.query_params.get("dir", ""), "dir")
    if not request.query_params.get("dir"):
        raise RequestRejected("the folder is missing", "dir")
    files = await user_data.list_files(connection, user, folder)
    if not files and folder:
        raise UserFileMissing(f"there is no folder {folder!r}")
    start = len(folder) + 1 if folder else 0
    named = [(file.path[start:], file) for file in files]
    if not query_flag(request, "recurse"):
        named = [(path, file) for path, file in named if "/" not in path]
    if query_flag(request, "full_info"):
        return json_response([_describe(file, path) for path, file in named])
    if query_flag(request, "split"):
        return json_response([[path, *path.split("/")] for path, _ in named])
    return json_response([path for path, _ in named])


@routes.get("/v2/userdata")
async def list_user_data_entries(request: Request, user: Caller, connection: Read) -> Response:
    """List the files and folders below a folder of the caller's: `path`."""
    folder = normalize_path(request.query_params.get("path", ""), "path")
    files = await user_data.list_files(connection, user, folder)
    if not files and folder:
        raise UserFileMissing(f"there is no folder {folder!r}")
    entries: dict[str, dict[str, Any]] = {}
    for file in files:
        for path in _folders_below(folder, file.path):
            entries[path] = {"name": path.rpartition("/")[2], "path": path, "type": "directory"}
        entries[file.path] = {
            "name": file.path.rpartition("/")[2],
            "path": file.path,
            "type": "file",
            "size": file.size,
            "modified": milliseconds(file.updated_at) / 1000,
        }
    return json_response(
        sorted(entries.values(), key=lambda entry: (entry["type"] != "directory", entry["name"].casefold()))
    )


def _folders_below(folder: str, path: str) -> list[str]:
    """Return the folders between a folder and a file in it, without the folder itself."""
    parts = path.split("/")
    first = len(folder.split("/")) + 1 if folder else 1
    return ["/".join(parts[:number]) for number in range(first, len(parts))]


@routes.get("/userdata/{file:path}")
async def get_user_data(request: Request, user: Caller, connection: Read, file: str) -> Response:  # noqa: ARG001
    """Get a file of the caller's, as a download."""
    path = _paths(request)[0]
    content = await user_data.read(connection, user, path)
    media_type = mimetypes.guess_type(path)[0]
    headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
    if path == STYLE_SHEET:
        media_type, headers["Content-Disposition"] = "text/css", "inline"
    elif media_type not in INERT_TYPES:
        media_type = "application/octet-stream"
    return Response(content, headers=headers, media_type=media_type)


@routes.post("/userdata/{file:path}")
async def post_user_data(request: Request, user: Caller, needs: Needs, file: str) -> Response:  # noqa: ARG001
    """Store the body as a file of the caller's, or with `FILE/move/NEW` rename one; `overwrite=false` protects others."""
    path, *new_paths = _paths(request)
    overwrite = query_flag(request, "overwrite", default=True)
    content = await request.body()
    async with needs.database.write() as connection:
        if new_paths:
            await user_data.move(connection, user, path, new_paths[0], overwrite=overwrite)
            path = new_paths[0]
        else:
            await user_data.write(connection, user, path, content, needs.settings.limits, overwrite=overwrite)
        stored = await user_data.info(connection, user, path)
    return json_response(_describe(stored, path) if query_flag(request, "full_info") else path)


@routes.delete("/userdata/{file:path}")
async def delete_user_data(request: Request, user: Caller, connection: Write, file: str) -> Response:  # noqa: ARG001
    """Delete a file of the caller's."""
    await user_data.remove(connection, user, _paths(request)[0])
    return Response(status_code=204)


def _paths(request: Request) -> list[str]:
    """Return the file of a URL, and the new name if it renames one.

    Slashes inside a path are percent-encoded, so they are told apart from those of the URL only before decoding.
    """
    raw = request.scope.get("raw_path", b"").decode("ascii", "replace").partition("?")[0]
    parts = raw.partition("/userdata/")[2].split("/")
    is_move = request.method == "POST" and len(parts) == 3 and parts[1] == MOVE  # noqa: PLR2004  (FILE/move/NEW)
    encoded = [parts[0], parts[2]] if is_move else ["/".join(parts)]
    paths = [normalize_path(urllib.parse.unquote(part), "file") for part in encoded]
    if not all(paths):
        raise RequestRejected("the name of the file is missing", "file")
    return paths


def _describe(file: UserFile, path: str) -> dict[str, Any]:
    return {
        "path": path,
        "size": file.size,
        "modified": milliseconds(file.updated_at),
        "created": milliseconds(file.created_at),
    }
