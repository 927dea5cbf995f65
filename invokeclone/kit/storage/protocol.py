"""The protocol of a storage: objects by key, such as `images/2026/name.png`, that never change once they are written.

Every method blocks; call them in a thread, on the event loop by `threads.in_storage_thread`. All raise OSError:
FileNotFoundError and FileExistsError as described, the others as `kit/files/storage_errors.py` converts them to responses
(full, read-only, unreachable).
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

CHUNK_SIZE = 8 * 1024 * 1024
"""Bytes that are held in memory at a time while a large object is read or written."""


class ObjectStat(NamedTuple):
    """An object without its content."""

    key: str
    size: int
    modified: datetime
    md5: str | None = None
    """MD5 of the content in hexadecimal as the service reports it; it may be another value of the same form."""


class ObjectPart(NamedTuple):
    """A part of an object's content, and the size of the whole."""

    content: bytes
    size: int


class ObjectStorage(Protocol):
    """A folder or bucket with objects."""

    @property
    def address(self) -> str:
        """The address for messages, without credentials."""
        ...

    def local_path(self, key: str) -> Path | None:
        """Return the path of the object's file, whether it exists or not; None if objects are not local files."""
        ...

    def write(self, key: str, data: bytes, *, replace: bool = False) -> None:
        """Write an object atomically; raises FileExistsError if there is one with other content, unless `replace`.

        A repeated request thus finds the object of the first.
        """
        ...

    def write_file(self, key: str, path: Path, *, replace: bool = False) -> None:
        """Move a local file, which is complete and on disk, into the storage as `write` does; it is not read as a whole.

        The file is gone afterwards, also after an error if it was moved.
        """
        ...

    def copy_file(self, key: str, path: Path) -> None:
        """Create or replace an object with the content of a local file, which stays; it is not read as a whole."""
        ...

    def get(self, key: str) -> bytes:
        """Return the content; raises FileNotFoundError."""
        ...

    def get_range(self, key: str, start: int, end: int) -> ObjectPart:
        """Return the bytes from `start` to before `end`, as far as they exist; raises FileNotFoundError."""
        ...

    def chunks(self, key: str, size: int = CHUNK_SIZE) -> Iterator[bytes]:
        """Yield the content in pieces of at most `size` bytes; raises FileNotFoundError at the first."""
        ...

    def stat(self, key: str) -> ObjectStat:
        """Return size and time of an object; raises FileNotFoundError."""
        ...

    def delete(self, keys: Iterable[str]) -> dict[str, OSError]:
        """Delete objects, missing ones are ignored; return the keys whose deletion failed, with the reasons."""
        ...

    def copy(self, source: str, target: str) -> None:
        """Create or replace `target` with the content of `source` inside the storage; raises FileNotFoundError."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield the complete objects whose keys are below `prefix`, a key of whole path components, in any order."""
        ...

    def list_partial(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield the incomplete objects below `prefix` that processes are writing, or have left; keys that `delete` accepts."""
        ...

    def presign(self, key: str, seconds: int) -> str | None:
        """Return a URL at which anyone may read the object for `seconds`; None if the storage has no such URLs."""
        ...

    def remove_partial(self, keys: Iterable[str]) -> None:
        """Remove what killed processes left of objects with these keys that they were writing."""
        ...


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object of a storage; every method blocks and raises OSError, FileNotFoundError when it does not exist."""

    storage: ObjectStorage
    key: str

    @property
    def name(self) -> str:
        """The last component of the key."""
        return self.key.rpartition("/")[2]

    @property
    def path(self) -> Path | None:
        """The path of the file, whether it exists or not; None if it is not a local file."""
        return self.storage.local_path(self.key)

    def stat(self) -> ObjectStat:
        """Return size and time."""
        return self.storage.stat(self.key)

    def exists(self) -> bool:
        """Return whether the object exists."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def read(self) -> bytes:
        """Return the content."""
        return self.storage.get(self.key)

    def source(self) -> Path | io.BytesIO:
        """Return what an image can be opened from: the path of a local file, else the content."""
        return self.path or io.BytesIO(self.read())

    def fetch(self, target: Path) -> None:
        """Write the content to a new local file, piece by piece; after an error the file is removed."""
        try:
            with target.open("xb") as file:
                for piece in self.storage.chunks(self.key):
                    file.write(piece)
        except FileExistsError:
            raise
        except BaseException:
            target.unlink(missing_ok=True)
            raise
