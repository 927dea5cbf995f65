"""Uploaded images under the names that clients gave them, with ComfyUI's rules for names that are taken."""

import posixpath
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image
from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import service as images
from invokeclone.kit.resources import Resources
from invokeclone.kit.times import now
from invokeclone.shims.comfyui.files.names import INPUT, MAX_PART_LENGTH, OUTPUT, ImageName
from invokeclone.tables import comfyui_uploads
from invokeclone.users.current import User

columns = comfyui_uploads.c
MAX_EXTENSION_LENGTH = 20
"""Characters of an extension that are kept in a numbered name."""
_NUMBER_LENGTH = 12
"""Characters of a numbered name for the number."""


async def find(connection: AsyncConnection, user: User, names: Iterable[ImageName]) -> dict[ImageName, str]:
    """Return the names of the stored images for those of `names` that the user has uploaded."""
    requested = set(names)
    query = select(columns.folder, columns.subfolder, columns.name, columns.image_name).where(
        columns.user_id == user.user_id, columns.name.in_({name.name for name in requested})
    )
    rows = {
        ImageName(folder, subfolder, name): image_name
        for folder, subfolder, name, image_name in await connection.execute(query)
    }
    return {name: rows[name] for name in requested if name in rows}


async def newest_inputs(connection: AsyncConnection, user: User, limit: int) -> dict[str, str]:
    """Return the user's newest uploads to the input folder: paths, newest first, and the names of their images."""
    query = (
        select(columns.subfolder, columns.name, columns.image_name)
        .where(columns.user_id == user.user_id, columns.folder == INPUT)
        .order_by(columns.created_at.desc(), columns.name)
        .limit(limit)
    )
    return {
        ImageName(INPUT, subfolder, name).path: image_name
        for subfolder, name, image_name in await connection.execute(query)
    }


async def find_free_name(
    connection: AsyncConnection, user: User, name: ImageName, content_hash: str, *, overwrite: bool
) -> tuple[ImageName, bool]:
    """Return the name to store an upload under, and whether this very file is already stored under it.

    Unless names are overwritten, ` (1)`, ` (2)` … are appended to a name that is taken by another file.
    """
    stem, extension = posixpath.splitext(name.name)
    extension = extension[:MAX_EXTENSION_LENGTH]
    stem = stem[: MAX_PART_LENGTH - len(extension) - _NUMBER_LENGTH]
    query = select(columns.name, columns.content_hash).where(
        columns.user_id == user.user_id,
        columns.folder == name.folder,
        columns.subfolder == name.subfolder,
        (columns.name == name.name) | columns.name.startswith(f"{stem} (", autoescape=True),
    )
    taken = {row.name: row.content_hash for row in await connection.execute(query)}
    candidate, number = name.name, 0
    while candidate in taken and taken[candidate] != content_hash and not overwrite:
        number += 1
        candidate = f"{stem} ({number}){extension}"
    return ImageName(name.folder, name.subfolder, candidate), taken.get(candidate) == content_hash


async def store(
    resources: Resources, user: User, name: ImageName, image: Image.Image, content_hash: str, *, overwrite: bool
) -> ImageName:
    """Store an image of the user's under a name; return the name that it got. Only those in `output` are in the gallery."""
    async with resources.database.read() as connection:
        free_name, is_stored = await find_free_name(connection, user, name, content_hash, overwrite=overwrite)
    if is_stored:
        return free_name
    record = await images.save(
        resources,
        image,
        category=ImageCategory.USER,
        origin=ResourceOrigin.EXTERNAL,
        is_intermediate=name.folder != OUTPUT,
        user_id=user.user_id,
    )
    async with resources.database.write() as connection:
        free_name, is_stored = await find_free_name(connection, user, name, content_hash, overwrite=overwrite)
        if not is_stored:
            await _insert(connection, user, free_name, record.image_name, content_hash)
    return free_name


async def _insert(connection: AsyncConnection, user: User, name: ImageName, image_name: str, content_hash: str) -> None:
    new = insert(comfyui_uploads).values(
        user_id=user.user_id,
        folder=name.folder,
        subfolder=name.subfolder,
        name=name.name,
        image_name=image_name,
        content_hash=content_hash,
        created_at=now(),
    )
    changed = {"image_name": image_name, "content_hash": content_hash, "created_at": new.excluded.created_at}
    await connection.execute(
        new.on_conflict_do_update(index_elements=["user_id", "folder", "subfolder", "name"], set_=changed)
    )


async def resolve(connection: AsyncConnection, user: User, names: Sequence[ImageName]) -> Mapping[ImageName, str]:
    """Return the names of the stored images for names of clients: uploads, else names that this server gave images."""
    uploads = await find(connection, user, names)
    return {name: uploads.get(name, name.name) for name in names if name in uploads or not name.subfolder}
