"""A write-ahead log of image and video files, so that a process that is killed leaves no file without a record.

An intent is one file that lists locations. It is written before the files of a new record and before records are deleted, and
removed once files and records agree. Recovery settles the intents of dead processes, and those of operations whose files
could not be removed: files without a record are removed. Locations to which a recorded image could be moved meanwhile are
reserved (`reservations.py`).
Intents are stored beside the database that has the records.
"""

import contextlib
import functools
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from anyio import CancelScope
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images import files, reservations, store
from invokeclone.images.media_kinds import IMAGES, VIDEOS, MediaKind
from invokeclone.images.schemas import ImageLocation
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.file_locks import try_lock
from invokeclone.kit.files.storage import OWNER_FILE_MODE, make_folder
from invokeclone.kit.files.storage_errors import StorageUnreachable
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.process.periodic import PeriodicTask
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.key_locks import key_of
from invokeclone.kit.sql.outcomes import read_stored
from invokeclone.kit.storage.protocol import StoredFile
from invokeclone.kit.storage.threads import in_storage_thread

FOLDER = "intents"
SETTLE_INTERVAL_S = 600.0
LOCKED_AT_ONCE = 100
_KINDS = {str(kind): kind for kind in (IMAGES, VIDEOS)}
_Locations = list[tuple[MediaKind, ImageLocation]]
Result = TypeVar("Result")

_log = log.get("images.intent_log")


class _RecordsUnknown(Exception):
    """The database has not answered which locations have records."""


class _BeingMoved(Exception):
    """A recorded image is being moved to one of the locations."""


class Intent:
    """A file that lists locations, locked while the process that wrote it is alive and uses it."""

    def __init__(self, settings: Settings) -> None:
        """Nothing is written yet."""
        self.locations: _Locations = []
        self.settled = True
        """Whether files and records agree at the end of the block; if not, they are settled later."""
        self.has_reservation = False
        """Whether locations are reserved, or may be; the reservation ends with the intent."""
        self._folder = folder(settings)
        self._path: Path | None = None
        self._descriptor: int | None = None
        self._lock = threading.RLock()
        self._has_ended = False

    @property
    def is_written(self) -> bool:
        """Whether the file exists."""
        return self._descriptor is not None

    @property
    def intent_id(self) -> str:
        """The name of the file, which must exist."""
        assert self._path is not None
        return self._path.stem

    def run(self, work: Callable[["Intent"], Result]) -> Result:
        """Call `work`, which writes files, and return its result; the end of the block waits for it. Blocks.

        A cancelled task does not stop its thread. Raises RuntimeError, without calling `work`, after the end.
        """
        with self._lock:
            if self._has_ended:
                raise RuntimeError("the task that writes these files was cancelled")
            return work(self)

    def end(self) -> None:
        """Wait for the work of a cancelled task's thread, and refuse later work. Blocks."""
        with self._lock:
            self._has_ended = True

    def write(self, kind: MediaKind, locations: Iterable[ImageLocation]) -> None:
        """Add `locations` before their files are written or their records deleted. Blocks. Raises OSError."""
        locations = list(locations)
        if locations:
            self.run(lambda _intent: self._append(kind, locations))

    def create(self) -> None:
        """Create the file, without locations as yet, if it does not exist. Blocks. Raises OSError."""
        if self._descriptor is None:
            self._descriptor = self._create()

    def _append(self, kind: MediaKind, locations: list[ImageLocation]) -> None:
        self.create()
        assert self._descriptor is not None
        lines = (json.dumps([str(kind), location.name, location.subfolder]) for location in locations)
        text = memoryview("".join(f"{line}\n" for line in lines).encode())
        self.locations += [(kind, location) for location in locations]
        while text:
            text = text[os.write(self._descriptor, text) :]

    def _create(self) -> int:
        """Create and lock the file; again if another process settled and removed it before it was locked."""
        make_folder(self._folder)
        while True:
            self._path = self._folder / f"{uuid4().hex}.json"
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_FILE_MODE)
            try:
                is_locked = try_lock(descriptor)
            except OSError:  # without locks, only the next start settles
                is_locked = True
            if is_locked and os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)

    def try_write(self, kind: MediaKind, locations: Iterable[ImageLocation]) -> None:
        """Add `locations` before their records are deleted; a full disk is logged and prevents no deletion. Blocks."""
        try:
            self.write(kind, locations)
        except OSError as error:
            _log.warning(
                "the intent to delete could not be written, so files may stay behind if the process is killed now: %s",
                error,
            )

    def close(self, *, remove: bool) -> None:
        """Release the lock, and `remove` the file when nothing is left to settle. Blocks."""
        self.end()
        if self._descriptor is None or self._path is None:
            return
        os.close(self._descriptor)
        self._descriptor = None
        if remove:
            self._path.unlink(missing_ok=True)


def folder(settings: Settings) -> Path:
    """Return the folder of the intents."""
    return settings.database_path.parent / FOLDER


@contextlib.asynccontextmanager
async def open_intent(resources: Resources) -> AsyncIterator[Intent]:
    """Give an intent to a block that writes files and then their records, or deletes records and then their files.

    When the block fails, files without a record are removed.
    """
    intent = Intent(resources.settings)
    try:
        yield intent
    except BaseException:
        with CancelScope(shield=True):
            await _undo(resources, intent)
        raise
    if intent.is_written:
        with CancelScope(shield=True):
            is_settled = intent.settled and (not intent.has_reservation or await _release(resources, intent.intent_id))
            await in_thread(_close, intent, remove=is_settled)


async def _undo(resources: Resources, intent: Intent) -> None:
    """Remove the files without a record of a block that failed; if this is cancelled, that is done later."""
    is_settled = False
    try:
        await in_thread(intent.end)
        if intent.is_written:
            has_reservation = intent.has_reservation
            is_settled = await _settle(resources, intent.intent_id, intent.locations, has_reservation=has_reservation)
    finally:
        await in_thread(_close, intent, remove=is_settled)


def _close(intent: Intent, *, remove: bool) -> None:
    """Close an intent; one that cannot be removed is settled again later."""
    try:
        intent.close(remove=remove)
    except OSError as error:
        _log.warning("an intent could not be removed: %s", error)


def lock_key(name: str) -> int:
    """Return the key of the lock (`Database.lock`) that a task holds while it stores an image whose name others may use.

    Such as a worker, which sends an image again if it gets no response, perhaps to another server.
    """
    return key_of(f"image {name}")


async def reserve(connection: AsyncConnection, intent: Intent, locations: Iterable[ImageLocation]) -> None:
    """Reserve the locations of an intent that is written, in the transaction of `connection`, until the intent is settled."""
    intent.has_reservation = True
    await reservations.reserve(connection, intent.intent_id, locations)


async def _settle(
    resources: Resources, intent_id: str, locations: _Locations, *, is_mine: bool = True, has_reservation: bool = True
) -> bool:
    """Remove files without a record, end the reservation, and return whether all of that succeeded.

    Those that are not `is_mine` but a dead process's are locked, as another server may be storing one of them again;
    then StorageUnreachable is raised. `has_reservation` says that the intent has a reservation already, or may have one.
    """
    try:
        for kind in _KINDS.values():
            listed = [location for location_kind, location in locations if location_kind is kind]
            orphans = await _find_orphans(resources, kind, listed)
            if kind is IMAGES and await _reserve_movable(resources, intent_id, orphans):
                has_reservation = True
                orphans = await _find_orphans(resources, kind, orphans)
                if await _has_last_files(resources, orphans):
                    return False
            if is_mine:
                await _remove(resources, orphans, kind)
                continue
            for start in range(0, len(orphans), LOCKED_AT_ONCE):
                batch = orphans[start : start + LOCKED_AT_ONCE]
                async with resources.database.lock(lock_key(location.name) for location in batch):
                    await _remove(resources, await _find_orphans(resources, kind, batch), kind)
    except _BeingMoved:
        return False
    except (OSError, SQLAlchemyError, _RecordsUnknown) as error:
        if isinstance(error, StorageUnreachable) and not is_mine:
            raise
        _log.warning("files without a record stay until intents are settled again: %s", error)
        return False
    return not has_reservation or await _release(resources, intent_id)


async def _remove(resources: Resources, orphans: list[ImageLocation], kind: MediaKind) -> None:
    """Remove files without a record. Raises the first error if some cannot be removed."""
    for error in (await in_storage_thread(files.remove, resources.storage, orphans, kind)).values():
        raise error


async def _reserve_movable(resources: Resources, intent_id: str, orphans: Sequence[ImageLocation]) -> bool:
    """Reserve locations, or renew their reservation, if some of their images have records elsewhere; return whether they have.

    Raises _BeingMoved if an image is being moved to a location that was not reserved.
    """
    if not orphans:
        return False
    async with resources.database.read() as connection:
        if not await store.existing(connection, IMAGES, [location.name for location in orphans]):
            return False
    async with resources.database.write() as connection:
        reserved = await reservations.list_reserved(connection, intent_id)
        if not (await reservations.list_move_targets(connection)).isdisjoint(set(orphans) - reserved):
            raise _BeingMoved
        await reservations.reserve(connection, intent_id, reserved.union(orphans))
    return True


async def _has_last_files(resources: Resources, orphans: Sequence[ImageLocation]) -> bool:
    """Return whether an image has a file here but none where its record is: recovery of a move corrects the record."""
    if not orphans:
        return False
    selection = store.select_named([location.name for location in orphans], IMAGES)
    async with resources.database.read() as connection:
        recorded = await store.list_locations(connection, selection)

    def search() -> bool:
        def exists(location: ImageLocation) -> bool:
            return StoredFile(resources.storage, files.full_key(location)).exists()

        lost = {location.name for location in recorded if not exists(location)}
        return any(location.name in lost and exists(location) for location in orphans)

    return bool(recorded) and await in_storage_thread(search)


async def _release(resources: Resources, intent_id: str) -> bool:
    """End the reservation of an intent; false if that is left to the next time that intents are settled.

    The exclusive transaction waits for one that reserves, and whose COMMIT got no answer: a read would not see that.
    """
    try:
        async with resources.database.write() as connection:
            await reservations.release(connection, intent_id)
    except (OSError, SQLAlchemyError) as error:
        _log.warning("images cannot be moved to some of their earlier subfolders yet: %s", error)
        return False
    return True


async def _find_orphans(
    resources: Resources, kind: MediaKind, locations: Sequence[ImageLocation]
) -> list[ImageLocation]:
    """Return the locations that no record has: another record of the name may have its files in another subfolder.

    Raises _RecordsUnknown if that cannot be read.
    """
    if not locations:
        return []
    selection = store.select_named([location.name for location in locations], kind)
    recorded = await read_stored(resources.database, lambda connection: store.list_locations(connection, selection))
    if recorded is None:
        raise _RecordsUnknown("their records cannot be read")
    with_record = set(recorded)
    return [location for location in locations if location not in with_record]


def regular_settling(resources: Resources, interval_s: float = SETTLE_INTERVAL_S) -> PeriodicTask:
    """Return the task that settles the intents that a storage on the network has left, as it could not be reached."""
    work = functools.partial(settle_all, resources)
    return PeriodicTask("settle_intents", work, interval_s, failure="cannot settle intents", logger=_log, at_once=False)


async def settle_all(resources: Resources, *, alone: bool = False) -> None:
    """Settle the intents of dead processes; `alone` says that no other process uses this root, so every intent is one.

    Raises neither OSError nor SQLAlchemyError: what cannot be settled is tried again, every `SETTLE_INTERVAL_S` and at the next start.
    """
    if alone:
        await in_thread(_remove_uploads, resources.settings)
    for path in await in_thread(_list, resources.settings):
        descriptor = await in_thread(_take, path, alone=alone)
        if descriptor is None:
            continue
        try:
            locations = await in_thread(_read, descriptor)
            await in_storage_thread(_remove_parts, resources, locations)
            if await _settle(resources, path.stem, locations, is_mine=False):
                await in_thread(path.unlink, missing_ok=True)
        except StorageUnreachable as error:  # each of the others would wait for it, too
            _log.warning("intents stay until the storage can be reached: %s", error)
            return
        except OSError as error:
            _log.warning("%s could not be settled: %s", path, error)
        finally:
            os.close(descriptor)


def _remove_uploads(settings: Settings) -> None:
    for part in files.uploads_folder(settings).glob("*.part"):
        with contextlib.suppress(OSError):
            part.unlink()


def _list(settings: Settings) -> list[Path]:
    return sorted(folder(settings).glob("*.json"))


def _take(path: Path, *, alone: bool) -> int | None:
    """Open and lock the intent of a dead process; None when its process is alive, or may be where there are no locks."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        is_locked = try_lock(descriptor)
    except OSError:
        is_locked = alone
    if is_locked:
        return descriptor
    os.close(descriptor)
    return None


def _read(descriptor: int) -> _Locations:
    """Return the locations of an intent.

    An incomplete last line names files of which nothing was written; other lines that cannot be read are ignored too.
    """
    locations: _Locations = []
    with open(descriptor, encoding="utf-8", errors="replace", closefd=False) as file:
        lines = file.read().splitlines()
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            kind, name, subfolder = json.loads(line)
            locations.append((_KINDS[kind], ImageLocation(name, subfolder)))
    return locations


def _remove_parts(resources: Resources, locations: _Locations) -> None:
    """Remove what was half-written of the files at `locations`."""
    resources.storage.remove_partial(key for kind, location in locations for key in files.keys(location, kind))
