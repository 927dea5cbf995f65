"""Zip files that are ready for their only download, as objects `zips/USER_ID/NAME.zip` of a storage.

Servers on one database have them in the storage that they share, so that each of them can send a zip file.
An object `….zip.claimed` marks one that is being sent. All functions block and raise OSError.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from invokeclone.images.errors import DownloadNotFound, NotYourDownload
from invokeclone.kit.storage.addresses import ZIPS
from invokeclone.kit.storage.protocol import ObjectStat, ObjectStorage, StoredFile
from invokeclone.users import rights
from invokeclone.users.current import User

SUFFIX = ".zip"
CLAIMED = ".claimed"

MAX_READY = 64
RETENTION_S = 24 * 3600
"""Zip files that are not downloaded are removed after a day, or when there are more than `MAX_READY`."""


class ReadyZips:
    """The zip files of all users."""

    def __init__(self, storage: ObjectStorage) -> None:
        """Keep zip files in `storage`."""
        self._storage = storage

    def add(self, user_id: str, path: Path) -> None:
        """Move a complete zip file into the storage, after old ones were removed to make room."""
        self.evict_old(MAX_READY - 1)
        self._storage.write_file(_key(user_id, path.name), path)

    def claim(self, user: User, name: str) -> StoredFile:
        """Return a zip file, which nobody else gets; the caller removes it.

        Raises DownloadNotFound, NotYourDownload.
        """
        key = self._find(name)
        if not rights.owns(user, key.split("/")[1]):
            raise NotYourDownload(name)
        try:
            self._storage.write(key + CLAIMED, uuid4().hex.encode())  # of equal contents, a storage accepts both
        except FileExistsError:
            raise DownloadNotFound(name) from None
        return StoredFile(self._storage, key)

    def contains(self, name: str) -> bool:
        """Return whether a zip file of this name can be downloaded."""
        try:
            self._find(name)
        except DownloadNotFound:
            return False
        return True

    def _find(self, name: str) -> str:
        for key, stats in self._objects().items():
            if key.rpartition("/")[2] == name and _is_ready(key, stats):
                return key
        raise DownloadNotFound(name)

    def remove(self, file: StoredFile) -> None:
        """Remove a zip file that was claimed."""
        self._storage.delete([file.key, file.key + CLAIMED])

    def release(self, file: StoredFile) -> None:
        """Let a zip file that was claimed, but not sent, be downloaded again."""
        self._storage.delete([file.key + CLAIMED])

    def remove_unfinished(self, user_id: str, name: str) -> None:
        """Remove what a process that was killed may have written of a zip file."""
        key = _key(user_id, name)
        self._storage.remove_partial([key])
        self._storage.delete([key])

    def evict_old(self, limit: int = MAX_READY) -> None:
        """Remove what is older than `RETENTION_S`, and the oldest zip files over `limit`."""
        oldest = datetime.now(UTC) - timedelta(seconds=RETENTION_S)
        fresh, evicted = dict[str, datetime](), list[str]()
        for key, stats in self._objects().items():
            modified = max(stat.modified for stat in stats)
            if modified < oldest:
                evicted += [stat.key for stat in stats]
            elif _is_ready(key, stats):
                fresh[key] = modified
        evicted += sorted(fresh, key=fresh.__getitem__)[: max(0, len(fresh) - limit)]
        if evicted:
            self._storage.delete(evicted)

    def _objects(self) -> dict[str, list[ObjectStat]]:
        return by_zip(self._storage.list(ZIPS))


def by_zip(stats: Iterable[ObjectStat]) -> dict[str, list[ObjectStat]]:
    """Return the objects by the key of their zip file: the file, and the mark of one that is being sent."""
    objects: defaultdict[str, list[ObjectStat]] = defaultdict(list)
    for stat in stats:
        objects[stat.key.removesuffix(CLAIMED)].append(stat)
    return dict(objects)


def _is_ready(key: str, stats: Sequence[ObjectStat]) -> bool:
    """Return whether the file is there and not being sent."""
    return [stat.key for stat in stats] == [key]


def _key(user_id: str, name: str) -> str:
    return f"{ZIPS}/{user_id}/{name}"
