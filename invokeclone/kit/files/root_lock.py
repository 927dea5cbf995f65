"""One server per root: a lock on a file in the root, held as long as the process lives, however it ends.

The file says which process holds it and where that listens. What is in a file that nobody holds means nothing.
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
        """Prepare; nothing is opened yet."""
        self._root = root
        self._path = root / FILE
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; the root is made when it is not there. Raises RootInUse, OSError when the root cannot be written.

        Where the file system has no locks a line in the log says so, and nothing is locked.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            free = try_lock(descriptor)
        except OSError as error:
            free = True
            _log.warning("%s cannot be locked (%s): start no second server on this root", self._root, error.strerror)
        if not free:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise RootInUse(
                f"a server already runs on {self._root} ({holder}): use that one, stop it, or choose another --root"
            )
        self._descriptor = descriptor
        self.write(None)

    def write(self, address: str | None) -> None:
        """Note in the file who holds the lock, and at which `address` that is reached."""
        if self._descriptor is not None:
            text = json.dumps({"pid": os.getpid(), "address": address}).encode()
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text, 0)

    def release(self) -> None:
        """Give the lock back; the file stays, as taking it away could let two servers in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _holder(descriptor: int) -> str:
    """Say who holds the lock, as far as the file tells."""
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
        pid, address = content["pid"], content["address"]
    except (OSError, ValueError, TypeError, KeyError):
        return "its process is not known"
    return f"process {pid} at {address}" if address else f"process {pid}, which is starting"
