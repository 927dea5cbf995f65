"""A cache of recently saved or read images, so that later nodes need not decode the file.

Only modes that a PNG stores losslessly are cached, so that a cached image equals the one in the file.
"""

import collections
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

EXACT_MODES = frozenset({"L", "RGB", "RGBA"})


class RecentImages:
    """An LRU cache of decoded images by name, limited in bytes. Thread-safe."""

    def __init__(self, budget: int) -> None:
        """Keep at most `budget` bytes of pixels."""
        self._budget = budget
        self._images: collections.OrderedDict[str, Image] = collections.OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, name: str) -> "Image | None":
        """Return a copy of the image, or None if it is not cached."""
        with self._lock:
            image = self._images.get(name)
            if image is None:
                return None
            self._images.move_to_end(name)
        return image.copy()

    def keep(self, name: str, image: "Image") -> None:
        """Cache a copy of `image` unless it is larger than the budget or its mode is not lossless in a file."""
        size = _bytes(image)
        if image.mode not in EXACT_MODES or size > self._budget:
            return
        image_copy = image.copy()
        image_copy.info = {}
        with self._lock:
            self._drop(name)
            self._images[name] = image_copy
            self._size += size
            while self._size > self._budget:
                self._drop(next(iter(self._images)))

    def forget(self, names: Iterable[str]) -> None:
        """Remove images whose files were deleted."""
        with self._lock:
            for name in names:
                self._drop(name)

    def _drop(self, name: str) -> None:
        image = self._images.pop(name, None)
        if image is not None:
            self._size -= _bytes(image)


def _bytes(image: "Image") -> int:
    return image.width * image.height * len(image.getbands())
