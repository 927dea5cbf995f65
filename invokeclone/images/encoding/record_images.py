"""Thumbnails of records of other packages: one WEBP file per record id in an area of the storage.

A record stores a version token, new with each image, which is the query of the image's URL: so browsers may cache what
they have downloaded.
"""

import secrets
from typing import NamedTuple

from invokeclone.images import files
from invokeclone.images.encoding import upload as upload_files
from invokeclone.images.errors import NotAnImage
from invokeclone.kit import log
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.errors import BadRequest, NotFound
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.storage.protocol import ObjectStorage, StoredFile
from invokeclone.kit.storage.threads import in_storage_thread

SUFFIX = ".webp"

_log = log.get("images")


class NoThumbnail(NotFound):
    """The record has no thumbnail."""

    def __init__(self, record_id: str) -> None:
        super().__init__(f"{record_id!r} has no thumbnail")


class StoredThumbnail(NamedTuple):
    """A thumbnail that exists."""

    file: StoredFile
    name: str
    """The file name for downloads."""
    bundled: bool
    """Whether it is part of the application, and so visible to all users."""


def new_version() -> str:
    """Return a new version token."""
    return secrets.token_hex(8)


async def make(data: bytes, content_type: str | None, limits: Limits) -> bytes:
    """Return an uploaded image as WEBP with no side over 256; raises NotAnImage, TooManyPixels."""
    if not (content_type or "").startswith("image"):
        raise NotAnImage(f"the content type {content_type!r} is not an image type")
    return await in_thread(lambda: files.thumbnail(upload_files.decode(data, limits)))


async def save(storage: ObjectStorage, area: str, record_id: str, webp: bytes) -> None:
    """Write the thumbnail of a record, replacing an earlier one."""
    await in_storage_thread(lambda: storage.write(_key(area, record_id), webp, replace=True))


async def remove(storage: ObjectStorage, area: str, record_id: str) -> None:
    """Remove the thumbnail of a record, if there is one; raises OSError."""
    failed = await in_storage_thread(lambda: storage.delete([_key(area, record_id)]))
    for error in failed.values():
        raise error


async def remove_of_deleted(storage: ObjectStorage, area: str, record_id: str) -> None:
    """Remove the thumbnail of a record that is deleted already; one that cannot be removed now becomes an orphan."""
    try:
        await remove(storage, area, record_id)
    except OSError as error:
        _log.warning("could not remove %s, which `invokeclone storage orphans` finds: %s", _key(area, record_id), error)


async def find(storage: ObjectStorage, area: str, record_id: str, *, bundled: bool = False) -> StoredThumbnail:
    """Return the thumbnail of a record; raises NoThumbnail."""
    file = StoredFile(storage, _key(area, record_id))
    if not await in_storage_thread(file.exists):
        raise NoThumbnail(record_id)
    return StoredThumbnail(file, f"{record_id}.png", bundled)


def _key(area: str, record_id: str) -> str:
    """Return the key of a thumbnail; raises BadRequest for an id that is not one component of a path."""
    if not record_id or "/" in record_id or "\\" in record_id or "\0" in record_id:
        raise BadRequest(f"not a file name: {record_id!r}")
    return f"{area}/{record_id}{SUFFIX}"


def record_id(key: str) -> str | None:
    """Return the id of the record whose thumbnail has this key; None for the keys of other files in the folder."""
    _area, _, name = key.partition("/")
    return name.removesuffix(SUFFIX) if name.endswith(SUFFIX) and "/" not in name else None
