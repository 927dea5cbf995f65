"""Zip files of images: created in the background in a local folder, downloaded once, reported by events.

The folder is deleted at startup and at shutdown, so files left by a crash do not stay. With a shared database, finished
zip files are in the storage, where they stay for their time.
"""

import asyncio
import contextlib
import shutil
import stat
import threading
import zipfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from anyio import CancelScope
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images import access, files, store
from invokeclone.images.archives.ready_zips import SUFFIX, ReadyZips
from invokeclone.images.errors import ImageNotFound, ImageNotYours, NothingToDownload, TooManyDownloads
from invokeclone.images.events import (
    BulkDownloadCompleteEvent,
    BulkDownloadErrorEvent,
    BulkDownloadStartedEvent,
)
from invokeclone.images.schemas import NO_BOARD, ImageFilter, ImageLocation
from invokeclone.kit import log
from invokeclone.kit.errors import Unprocessable
from invokeclone.kit.files.storage import make_folder
from invokeclone.kit.process.offload import in_thread, wait_until_done
from invokeclone.kit.resources import Resources
from invokeclone.kit.storage.local import LocalStorage
from invokeclone.kit.storage.protocol import StoredFile
from invokeclone.kit.storage.threads import in_storage_thread
from invokeclone.users.current import User

FOLDER = ".bulk_download"
UNFINISHED = "unfinished"
"""The folder in `FOLDER` of the zip files that are being created, in a folder per user."""
BULK_DOWNLOAD_ID = "default"
"""The id under which every client waits for its zip files."""

MAX_CONCURRENT = 2
MAX_PENDING = 32

PIECE = 1024 * 1024
ZIP_TIMES = (1980, 1, 1, 0, 0, 0), (2107, 12, 31, 23, 59, 58)
"""The first and the last time that a file in a zip file can have."""
ZIP_ATTRIBUTES = (stat.S_IFREG | 0o600) << 16
"""Permissions of extracted files: for their owner."""
NAME_LENGTH = 100
UNCATEGORIZED = "Uncategorized"
MISSING = "missing.txt"
MISSING_TEXT = "The files of these images are lost:"

_log = log.get("images.downloads")


class _ServerStopping(Exception):
    """The server is shutting down."""


@dataclass(frozen=True)
class _ZipFile:
    """A zip file in preparation."""

    item_id: str
    user_id: str
    path: Path

    @property
    def name(self) -> str:
        """The name for the download route."""
        return self.path.name


class _ZipContents(NamedTuple):
    """Content of a zip file: its entries with their file locations, and names without an image.

    `allow_missing`: lost files are skipped, as for a board; explicitly named images must all be present.
    """

    entries: dict[str, ImageLocation]
    missing: list[str]
    allow_missing: bool = False


def clean_name(board_name: str) -> str:
    """Return the letters, digits, spaces, `_` and `-` of a board's name, truncated to the length of a file name."""
    name = "".join(letter for letter in board_name if letter.isalnum() or letter in " _-").strip()
    return name.encode()[:NAME_LENGTH].decode(errors="ignore").strip()


class ImageDownloads:
    """The zip files of one server. Call `start` and `stop` with the server's startup and shutdown."""

    def __init__(self, resources: Resources) -> None:
        """Create zip files of the images of `resources`."""
        self._resources = resources
        self._folder = resources.settings.outputs_path / FOLDER
        self._unfinished = self._folder / UNFINISHED
        is_shared = resources.database.is_shared
        self.ready = ReadyZips(resources.storage if is_shared else LocalStorage(self._folder))
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._stopping = threading.Event()

    async def start(self) -> None:
        """Remove zip files left by an earlier run."""
        try:
            await in_storage_thread(self._remove_leftovers)
        except OSError as error:
            _log.warning("could not remove old zip files: %s", _reason(error))

    def _remove_leftovers(self) -> None:
        for path in self._unfinished.glob(f"*/*{SUFFIX}"):  # complete, but maybe not moved to the storage
            self.ready.remove_unfinished(path.parent.name, path.name)
        shutil.rmtree(self._folder, ignore_errors=True)
        self.ready.evict_old()

    async def stop(self) -> None:
        """Cancel running jobs and remove the local zip files."""
        self._stopping.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await in_thread(shutil.rmtree, self._folder, ignore_errors=True)

    @contextlib.asynccontextmanager
    async def claim(self, user: User, name: str) -> AsyncIterator[StoredFile]:
        """Claim a zip file for its download, which can be tried again if the block fails.

        Raises DownloadNotFound, NotYourDownload.
        """
        claim = asyncio.ensure_future(in_storage_thread(self.ready.claim, user, name))
        try:
            await wait_until_done(claim)
            yield claim.result()
        except BaseException:
            if not claim.cancelled() and claim.exception() is None:
                with contextlib.suppress(OSError), CancelScope(shield=True):
                    await in_storage_thread(self.ready.release, claim.result())
            raise

    async def remove(self, file: StoredFile) -> None:
        """Remove a zip file that was claimed; one that cannot be removed now is evicted when it is old."""
        try:
            await in_storage_thread(self.ready.remove, file)
        except OSError as error:
            _log.warning("could not remove the zip file %s yet: %s", file.name, _reason(error))

    async def request(self, user: User, image_names: Sequence[str] | None, board_id: str | None) -> str:
        """Start creating a zip file of a board, or else of the named images; return its download name.

        Raises NothingToDownload, BoardNotFound, NotYourBoard, ImageNotYours, TooManyDownloads, Unprocessable for too
        many images.
        """
        if not image_names and board_id is None:
            raise NothingToDownload
        if len(self._tasks) >= MAX_PENDING or self._stopping.is_set():
            raise TooManyDownloads
        async with self._resources.database.read() as connection:
            if board_id is None:
                prefix, contents = "", await _contents_by_name(connection, user, image_names or [])
            else:
                prefix, contents = await _contents_of_board(connection, user, board_id)
                _check_number(len(contents.entries), self._resources.settings.limits.download_images)
        item_id = f"{prefix}{uuid4()}"
        zip_file = _ZipFile(item_id, user.user_id, self._unfinished / user.user_id / f"{item_id}{SUFFIX}")
        task = asyncio.create_task(self._make(zip_file, contents), name=f"zip {item_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return zip_file.name

    async def _make(self, zip_file: _ZipFile, contents: _ZipContents) -> None:
        """Create one zip file and emit the outcome."""
        event_fields = {
            "bulk_download_id": BULK_DOWNLOAD_ID,
            "bulk_download_item_id": zip_file.item_id,
            "bulk_download_item_name": zip_file.name,
            "user_id": zip_file.user_id,
        }
        events = self._resources.events
        async with self._slots:
            if self._stopping.is_set():
                return
            events.emit(BulkDownloadStartedEvent(**event_fields))
            try:
                await in_storage_thread(self._create, zip_file, contents)
            except _ServerStopping:
                return
            except (ImageNotFound, OSError) as error:
                text = _reason(error)
                _log.warning("could not create the zip file %s: %s", zip_file.name, text)
                events.emit(BulkDownloadErrorEvent(**event_fields, error=text))
                return
            events.emit(BulkDownloadCompleteEvent(**event_fields))

    def _create(self, zip_file: _ZipFile, contents: _ZipContents) -> None:
        self._write(zip_file.path, contents)
        try:
            self.ready.add(zip_file.user_id, zip_file.path)
        except BaseException:
            zip_file.path.unlink(missing_ok=True)
            raise

    def _write(self, path: Path, contents: _ZipContents) -> None:
        """Write the entries uncompressed, as images are compressed already.

        Add a text that lists lost files of a board.
        """
        if contents.missing:
            raise ImageNotFound(contents.missing[0])
        part = path.with_suffix(".part")
        make_folder(path.parent)
        try:
            with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
                lost = self._add_all(archive, contents)
                if lost:
                    archive.writestr(MISSING, "\n".join([MISSING_TEXT, *lost, ""]))
                    _log.warning("the files of %d images are missing; they are listed in %s", len(lost), path.name)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _add_all(self, archive: zipfile.ZipFile, contents: _ZipContents) -> list[str]:
        """Add every entry; return those whose files are missing.

        Raises FileNotFoundError when all are, or none may be.
        """
        missing = []
        for entry, location in contents.entries.items():
            try:
                self._add(archive, entry, StoredFile(self._resources.storage, files.full_key(location)))
            except FileNotFoundError:
                missing.append(entry)
                if not contents.allow_missing or len(missing) == len(contents.entries):
                    raise
        return missing

    def _add(self, archive: zipfile.ZipFile, entry: str, file: StoredFile) -> None:
        status = file.stat()
        modified = status.modified.astimezone().timetuple()[:6]
        info = zipfile.ZipInfo(entry, min(max(modified, ZIP_TIMES[0]), ZIP_TIMES[1]))
        info.file_size, info.external_attr = status.size, ZIP_ATTRIBUTES
        with archive.open(info, "w") as target:
            for piece in file.storage.chunks(file.key, PIECE):
                if self._stopping.is_set():
                    raise _ServerStopping
                target.write(piece)


def _reason(error: Exception) -> str:
    """Return the error text for a client, without server paths."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {Path(error.filename).name}"
    return str(error)


async def _contents_by_name(connection: AsyncConnection, user: User, names: Sequence[str]) -> _ZipContents:
    """Look up the named images. Raises ImageNotYours."""
    allowed = await access.readable(connection, user, access.IMAGES, names)
    if allowed.refused:
        raise ImageNotYours(allowed.refused[0])
    entries = await store.image_locations(connection, names=allowed.names)
    existing = {location.name for location in entries.values()}
    return _ZipContents(entries, [name for name in allowed.names if name not in existing])


async def _contents_of_board(connection: AsyncConnection, user: User, board_id: str) -> tuple[str, _ZipContents]:
    """Look up the images that the gallery shows for a board ("none": no board), and the prefix of the zip file's name.

    Raises BoardNotFound, NotYourBoard.
    """
    owner = await access.list_owner(connection, user, board_id)
    board_name = UNCATEGORIZED if board_id == NO_BOARD else await store.board_name(connection, board_id)
    entries = await store.image_locations(
        connection, on=ImageFilter(board_id=board_id, is_intermediate=False, owner=owner)
    )
    prefix = clean_name(board_name)
    return f"{prefix}_" if prefix else "", _ZipContents(entries, [], allow_missing=True)


def _check_number(number: int, limit: int) -> None:
    if number > limit:
        raise Unprocessable(
            f"the board has {number} images, more than {limit} per zip file (setting limits.download_images)"
        )
