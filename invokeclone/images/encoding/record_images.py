"""Thumbnails of records of other packages: one WEBP file per record id in a folder.

A record stores a version token, new with each image, which is the query of the image's URL: so browsers may cache what
they have downloaded.
"""

import secrets
from pathlib import Path
from typing import NamedTuple

from invokeclone.images import files
from invokeclone.images.encoding import upload as upload_files
from invokeclone.images.errors import NotAnImage
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.errors import NotFound
from invokeclone.kit.files.storage import remove_file, safe_join, write_file
from invokeclone.kit.process.offload import in_thread


class NoThumbnail(NotFound):
    """The record has no thumbnail."""

    def __init__(self, record_id: str) -> None:
        super().__init__(f"{record_id!r} has no thumbnail")


class StoredThumbnail(NamedTuple):
    """A thumbnail on disk."""

    path: Path
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


async def save(folder: Path, record_id: str, webp: bytes) -> None:
    """Write the thumbnail of a record, replacing an earlier one."""
    await in_thread(lambda: write_file(_file(folder, record_id), webp))


async def remove(folder: Path, record_id: str) -> None:
    """Remove the thumbnail of a record, if there is one."""
    await in_thread(lambda: remove_file(_file(folder, record_id)))


async def find(folder: Path, record_id: str, *, bundled: bool = False) -> StoredThumbnail:
    """Return the thumbnail of a record; raises NoThumbnail."""
    path = _file(folder, record_id)
    if not await in_thread(path.is_file):
        raise NoThumbnail(record_id)
    return StoredThumbnail(path, f"{record_id}.png", bundled)


def _file(folder: Path, record_id: str) -> Path:
    return safe_join(folder, f"{record_id}.webp")
