"""Small pictures that other rooms show a record by: one WEBP file per id in a folder; it knows no record.

`make`, `keep` and `drop` block. What a record remembers is a mark, new with each picture, which is the query of the
picture's address: so browsers may keep what they have fetched.
"""

import secrets
from pathlib import Path
from typing import NamedTuple

from invokeclone.images import files
from invokeclone.images.encoding import upload as intake
from invokeclone.images.errors import NotAnImage
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.errors import NotFound
from invokeclone.kit.files.storage import remove_file, safe_join, write_file
from invokeclone.kit.process.offload import in_thread


class NoThumbnail(NotFound):
    """The record has no picture."""

    def __init__(self, record_id: str) -> None:
        """Say whose."""
        super().__init__(f"{record_id!r} has no picture")


class StoredThumbnail(NamedTuple):
    """A thumbnail on disk."""

    path: Path
    name: str
    """Under which browsers save it."""
    bundled: bool
    """Whether it comes with the application, so that everybody may see it."""


def new_version() -> str:
    """Return a new mark."""
    return secrets.token_hex(8)


async def make(data: bytes, content_type: str | None, limits: Limits) -> bytes:
    """Return the WEBP, no side over 256, of an uploaded picture; raises NotAnImage, TooManyPixels."""
    if not (content_type or "").startswith("image"):
        raise NotAnImage(f"the content type {content_type!r} is not that of an image")
    return await in_thread(lambda: files.thumbnail(intake.decode(data, limits)))


async def save(folder: Path, record_id: str, webp: bytes) -> None:
    """Write the picture of a record, in place of the one it has."""
    await in_thread(lambda: write_file(_file(folder, record_id), webp))


async def remove(folder: Path, record_id: str) -> None:
    """Remove the picture of a record; it need not have one."""
    await in_thread(lambda: remove_file(_file(folder, record_id)))


async def find(folder: Path, record_id: str, *, bundled: bool = False) -> StoredThumbnail:
    """Return where the thumbnail of a record lies; raises NoThumbnail."""
    path = _file(folder, record_id)
    if not await in_thread(path.is_file):
        raise NoThumbnail(record_id)
    return StoredThumbnail(path, f"{record_id}.png", bundled)


def _file(folder: Path, record_id: str) -> Path:
    return safe_join(folder, f"{record_id}.webp")
