"""Files that clients keep per user, such as workflows and settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.kit.config.limits import MIB, Limits
from invokeclone.kit.errors import Conflict, NotFound, TooLarge, Unprocessable
from invokeclone.kit.json_text import SLICE_SIZE, NotStorable, decode
from invokeclone.kit.process.offload import off_loop
from invokeclone.kit.times import now
from invokeclone.tables import comfyui_user_data
from invokeclone.users.current import User

SETTINGS = "comfy.settings.json"
"""The file with a user's settings."""
columns = comfyui_user_data.c


class UserFileMissing(NotFound):
    """The user has no file with this path."""


class UserFileExists(Conflict):
    """The path is taken by another file or folder."""


class UserFileTooLarge(TooLarge):
    """The file is over the limit."""


class TooManyUserFiles(Unprocessable):
    """The user has as many files as the limit allows."""


@dataclass(frozen=True)
class UserFile:
    """A file without its content."""

    path: str
    size: int
    """In bytes."""
    created_at: str
    updated_at: str


_FILE = (columns.path, func.length(columns.content), columns.created_at, columns.updated_at)


def _is_owner(user: User) -> ColumnElement[bool]:
    return columns.user_id == user.user_id


def _has_path(user: User, path: str) -> ColumnElement[bool]:
    return _is_owner(user) & (columns.path == path)


def _is_below(folder: str) -> ColumnElement[bool]:
    """Match files in a folder, by the range of the index that their paths are in."""
    return (columns.path > f"{folder}/") & (columns.path < f"{folder}0")  # 0 follows / in Unicode


async def read(connection: AsyncConnection, user: User, path: str) -> bytes:
    """Return the content of a file; raises UserFileMissing."""
    content: bytes | None = await connection.scalar(select(columns.content).where(_has_path(user, path)))
    if content is None:
        raise UserFileMissing(f"there is no file {path!r}")
    return content


async def info(connection: AsyncConnection, user: User, path: str) -> UserFile:
    """Return the file without its content; raises UserFileMissing."""
    row = (await connection.execute(select(*_FILE).where(_has_path(user, path)))).one_or_none()
    if row is None:
        raise UserFileMissing(f"there is no file {path!r}")
    return UserFile(*row)


async def list_files(connection: AsyncConnection, user: User, folder: str) -> list[UserFile]:
    """Return the files in a folder and its subfolders, by path; the user's own folder is ''."""
    query = select(*_FILE).where(_is_owner(user), *([_is_below(folder)] if folder else [])).order_by(columns.path)
    return [UserFile(*row) for row in await connection.execute(query)]


async def write(
    connection: AsyncConnection, user: User, path: str, content: bytes, limits: Limits, *, overwrite: bool = True
) -> None:
    """Store a file; raises UserFileTooLarge, TooManyUserFiles, UserFileExists."""
    if len(content) > limits.comfyui_file_mib * MIB:
        raise UserFileTooLarge(
            f"the file is larger than {limits.comfyui_file_mib} MiB (setting limits.comfyui_file_mib)"
        )
    is_new = await connection.scalar(select(columns.path).where(_has_path(user, path))) is None
    if not is_new and not overwrite:
        raise UserFileExists(f"the file {path!r} exists already")
    if is_new:
        await _check_free(connection, user, path)
        count = await connection.scalar(select(func.count()).where(_is_owner(user)))
        if (count or 0) >= limits.comfyui_files:
            raise TooManyUserFiles(f"you have {count} files already (setting limits.comfyui_files): delete some first")
    moment = now()
    new = insert(comfyui_user_data).values(
        user_id=user.user_id, path=path, content=content, created_at=moment, updated_at=moment
    )
    await connection.execute(
        new.on_conflict_do_update(
            index_elements=["user_id", "path"],
            set_={"content": new.excluded.content, "updated_at": new.excluded.updated_at},
        )
    )


async def _check_free(connection: AsyncConnection, user: User, path: str) -> None:
    """Raise UserFileExists when the path is a folder with files, or when one of its folders is a file."""
    parts = path.split("/")
    folders = ["/".join(parts[:number]) for number in range(1, len(parts))]
    query = select(columns.path).where(_is_owner(user), columns.path.in_(folders) | _is_below(path)).limit(1)
    if (other := await connection.scalar(query)) is not None:
        raise UserFileExists(f"{path!r} cannot be stored beside {other!r}: a path is either a file or a folder")


async def remove(connection: AsyncConnection, user: User, path: str) -> None:
    """Delete a file; raises UserFileMissing."""
    result = await connection.execute(delete(comfyui_user_data).where(_has_path(user, path)))
    if not result.rowcount:
        raise UserFileMissing(f"there is no file {path!r}")


async def move(connection: AsyncConnection, user: User, path: str, new_path: str, *, overwrite: bool = True) -> None:
    """Rename a file; raises UserFileMissing, UserFileExists."""
    await info(connection, user, path)
    if path == new_path:
        return
    exists = await connection.scalar(select(columns.path).where(_has_path(user, new_path))) is not None
    if exists and not overwrite:
        raise UserFileExists(f"the file {new_path!r} exists already")
    await connection.execute(delete(comfyui_user_data).where(_has_path(user, new_path)))
    await connection.execute(update(comfyui_user_data).where(_has_path(user, path)).values(path=new_path))
    if not exists:
        await _check_free(connection, user, new_path)


# Settings


async def read_settings(connection: AsyncConnection, user: User, limits: Limits) -> dict[str, Any]:
    """Return the user's settings; empty if there are none, or if the client stored a file that has none."""
    try:
        settings = await _decode(await read(connection, user, SETTINGS), limits)
    except (UserFileMissing, NotStorable, TooLarge, json.JSONDecodeError):
        return {}
    return settings if isinstance(settings, dict) else {}


async def change_settings(connection: AsyncConnection, user: User, changes: Mapping[str, Any], limits: Limits) -> None:
    """Change some of the user's settings; raises UserFileTooLarge, and TooLarge if they could not be read again."""
    settings = await read_settings(connection, user, limits) | dict(changes)
    content = orjson.dumps(settings, option=orjson.OPT_INDENT_2)
    await _decode(content, limits)
    await write(connection, user, SETTINGS, content, limits)


async def _decode(content: bytes, limits: Limits) -> Any:
    """Return the value of JSON; raises as `decode`."""
    return decode(content, limits) if len(content) < SLICE_SIZE else await off_loop(lambda: decode(content, limits))
