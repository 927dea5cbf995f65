"""One server per root: a file lock in the root, released when the process ends for any reason.

The file contains the process id and address of the holder. Its content is meaningless while the lock is not held.
"""

import json
import os
from pathlib import Path

from invokeclone.kit import log
from invokeclone.kit.errors import Conflict
from invokeclone.kit.files.file_locks import try_lock

FILE = ".invokeclone.lock"

_log = log.get("root_lock")


class RootInUse(Conflict):
    """Another server runs on this root."""


class RootLock:
    """The lock of one root, held from `acquire` to `release` or the end of the process."""

    def __init__(self, root: Path) -> None:
        """Store the path; `acquire` opens the file."""
        self._root = root
        self._path = root / FILE
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; creates the root if it is missing. Raises RootInUse, OSError when the root is not writable.

        On a file system without locks this logs a warning and locks nothing.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            free = try_lock(descriptor)
        except OSError as error:
            free = True
            _log.warning("%s cannot be locked (%s): do not start a second server on it", self._root, error.strerror)
        if not free:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise RootInUse(
                f"a server already runs on {self._root} ({holder}): use it, stop it, or choose another --root"
            )
        self._descriptor = descriptor
        self.write(None)

    def write(self, address: str | None) -> None:
        """Write the process id and the `address` of this server to the file."""
        if self._descriptor is not None:
            text = json.dumps({"pid": os.getpid(), "address": address}).encode()
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text, 0)

    def release(self) -> None:
        """Release the lock; the file stays because deleting it could let two servers start."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _holder(descriptor: int) -> str:
    """Describe the holder of the lock from the content of the file."""
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
        pid, address = content["pid"], content["address"]
    except (OSError, ValueError, TypeError, KeyError):
        return "unknown process"
    return f"process {pid} at {address}" if address else f"process {pid}, starting up"
