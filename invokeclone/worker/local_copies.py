"""Local copies of stored files, for nodes that open a file by its path although the storage is not on this machine."""

import collections
import threading
from pathlib import Path

from invokeclone.kit.files.storage import make_folder, remove_file
from invokeclone.kit.storage.protocol import StoredFile

BUDGET = 1024**3
"""Bytes of copies; the least recently used ones are removed."""


class LocalCopies:
    """Copies by key in a folder that no other process uses. Thread-safe. Files never change under their keys."""

    def __init__(self, folder: Path, budget: int = BUDGET) -> None:
        """Keep at most `budget` bytes, and always the newest copy."""
        self._folder = folder
        self._budget = budget
        self._sizes: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._lock = threading.Lock()

    def path(self, file: StoredFile) -> Path:
        """Return the path of a file or of its copy; a copy is made if there is none. Raises OSError. Blocks."""
        if file.path is not None:
            return file.path
        copy = self._folder / file.key
        with self._lock:
            if file.key not in self._sizes or not copy.is_file():
                make_folder(copy.parent)
                remove_file(copy)
                file.fetch(copy)
                self._sizes[file.key] = copy.stat().st_size
            self._sizes.move_to_end(file.key)
            while sum(self._sizes.values()) > self._budget and len(self._sizes) > 1:
                oldest, _ = self._sizes.popitem(last=False)
                remove_file(self._folder / oldest)
        return copy
