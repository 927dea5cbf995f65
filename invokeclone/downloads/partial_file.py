"""The unfinished file: `<name>.part` next to where it will be, and a note of which state of the source it is a part of.

It knows bytes and disks and refuses to know the web. Every method blocks; call them in a thread, one at a time.
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
"""Bytes that a download leaves free on the disk."""
_CHUNK = 4 * 1024 * 1024


@dataclass(frozen=True)
class SourceState:
    """Which state of which source the bytes are of. Without a mark of that state they are worth nothing later."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """The mark to send as If-Range: a strong ETag, else the time of the last change."""
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        return strong or self.last_modified

    @property
    def is_identifiable(self) -> bool:
        """Whether the state can be told from another."""
        return bool(self.etag or self.last_modified)

    def is_same_state(self, other: "SourceState") -> bool:
        """Tell whether the other note is surely of the same state."""
        if self.etag or other.etag:
            return self.etag == other.etag
        return self.last_modified is not None and self.last_modified == other.last_modified


class PartialFile:
    """One unfinished file."""

    def __init__(self, target: Path, sha256: str | None = None) -> None:
        """Become the file `target` once whole, with this checksum if one is known."""
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._state_path = target.with_name(f"{target.name}.part.json")
        self.sha256 = sha256
        self._hash: Any = None
        self._file: IO[bytes] | None = None
        self.complete = False

    def load_state(self) -> tuple[int, SourceState | None]:
        """Return how many bytes an earlier attempt left, and the note of what they are; (0, None) without any."""
        try:
            state = SourceState(**json.loads(self._state_path.read_bytes()))
            size = self.path.stat().st_size
        except (OSError, ValueError, TypeError):
            return 0, None
        return (size, state) if size else (0, None)

    def open(self, state: SourceState, offset: int) -> None:
        """Go on after the first `keep` bytes, or anew with 0. Raises DestinationTaken, OSError."""
        self.close()
        if self.target.exists():
            raise DestinationTaken(f"there is a file already: {self.target}")
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
        """Add bytes."""
        assert self._file is not None
        self._file.write(data)
        self._file.flush()
        if self._hash is not None:
            self._hash.update(data)

    def finish(self) -> None:
        """Check the whole and give it its name. Raises ChecksumMismatch, DestinationTaken, OSError."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        if self._hash is not None and self._hash.hexdigest() != self.sha256:
            raise ChecksumMismatch(f"{self.target.name} has the checksum {self._hash.hexdigest()}, not {self.sha256}")
        if self.target.exists():
            raise DestinationTaken(f"there is a file already: {self.target}")
        self.path.rename(self.target)
        self.complete = True
        self._state_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; what is written stays for a later attempt."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def drop(self) -> None:
        """Remove what is here of it."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._state_path.unlink(missing_ok=True)


def check_space(folder: Path, required_bytes: int) -> None:
    """Raise DiskFull unless `wanted` more bytes fit on the disk of a folder, which need not be there yet."""
    existing_folder = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(existing_folder).free
    if required_bytes + MIN_FREE_BYTES > free:
        raise DiskFull(f"{required_bytes} bytes more do not fit on the disk of {existing_folder}: {free} are free")
