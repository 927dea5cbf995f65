"""Partial files of downloads: `<name>.part` next to the target, and `<name>.part.json` with the state of the source.

Every method blocks; call them in a thread, one at a time.
"""

import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from invokeclone.downloads.errors import ChecksumMismatch, DestinationTaken, DiskFull
from invokeclone.kit.files.storage import write_file

MIN_FREE_BYTES = 64 * 1024 * 1024
"""Disk space in bytes that a download leaves free."""
_CHUNK = 4 * 1024 * 1024


@dataclass(frozen=True)
class SourceState:
    """URL and version of the source of a partial file; without ETag or Last-Modified it cannot be resumed."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """The value for If-Range: a strong ETag, else Last-Modified."""
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        return strong or self.last_modified

    @property
    def is_identifiable(self) -> bool:
        """Whether the state has an ETag or Last-Modified to compare."""
        return bool(self.etag or self.last_modified)

    def is_same_state(self, other: "SourceState") -> bool:
        """Return whether both states certainly are the same version of the source."""
        if self.etag or other.etag:
            return self.etag == other.etag
        return self.last_modified is not None and self.last_modified == other.last_modified


class PartialFile:
    """The partial file of one download."""

    def __init__(self, target: Path, sha256: str | None = None) -> None:
        """Prepare the partial file of `target`; `sha256` is the expected checksum if known."""
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._state_path = target.with_name(f"{target.name}.part.json")
        self.sha256 = sha256
        self._hash: Any = None
        self._file: IO[bytes] | None = None
        self.complete = False

    def load_state(self) -> tuple[int, SourceState | None]:
        """Return the size and source state of the partial file of an earlier attempt; (0, None) if there is none."""
        try:
            state = SourceState(**json.loads(self._state_path.read_bytes()))
            size = self.path.stat().st_size
        except (OSError, ValueError, TypeError):
            return 0, None
        return (size, state) if size else (0, None)

    def open(self, state: SourceState, offset: int) -> None:
        """Open the file, keeping the first `offset` bytes. Raises DestinationTaken, OSError."""
        self.close()
        if self.target.exists():
            raise DestinationTaken(f"the file exists already: {self.target}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._hash = hashlib.sha256() if self.sha256 else None
        self._file = self.path.open("r+b" if offset else "w+b")
        self._file.truncate(offset)
        if self._hash is not None:
            while chunk := self._file.read(_CHUNK):
                self._hash.update(chunk)
        self._file.seek(offset)
        write_file(self._state_path, json.dumps(asdict(state)).encode())

    def write(self, data: bytes) -> None:
        """Append bytes."""
        assert self._file is not None
        self._file.write(data)
        self._file.flush()
        if self._hash is not None:
            self._hash.update(data)

    def finish(self) -> None:
        """Verify the checksum and rename the file to its target. Raises ChecksumMismatch, DestinationTaken, OSError."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        if self._hash is not None and self._hash.hexdigest() != self.sha256:
            raise ChecksumMismatch(
                f"{self.target.name} has the checksum {self._hash.hexdigest()} instead of {self.sha256}"
            )
        if self.target.exists():
            raise DestinationTaken(f"the file exists already: {self.target}")
        self.path.rename(self.target)
        self.complete = True
        self._state_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file, keeping it for a later attempt."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def drop(self) -> None:
        """Remove the partial file and its state."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._state_path.unlink(missing_ok=True)


def check_space(folder: Path, required_bytes: int) -> None:
    """Raise DiskFull unless `required_bytes` more bytes fit on the disk of a folder, which need not exist yet."""
    existing_folder = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(existing_folder).free
    if required_bytes + MIN_FREE_BYTES > free:
        raise DiskFull(f"{required_bytes} bytes do not fit on the disk of {existing_folder}: {free} bytes are free")
