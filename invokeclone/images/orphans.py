"""Objects in the storage without a record: left by machines that never came back to settle their intents."""

import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from invokeclone.images import store
from invokeclone.images.media_kinds import IMAGES, VIDEOS, MediaKind
from invokeclone.kit.resources import Resources
from invokeclone.kit.storage.protocol import ObjectStat
from invokeclone.kit.storage.threads import in_storage_thread

MIN_AGE = timedelta(days=1)
"""Younger objects may belong to an upload or a run that has not created its record yet."""
BATCH_SIZE = 1000
_DERIVED = {"thumbnails", "sidecars"}
_SUFFIXES = {IMAGES: (".png", ".jpg", ".jpeg", ".webp"), VIDEOS: (".mp4",)}
"""Suffixes of the names to which a thumbnail or a sidecar file may belong."""


async def find(resources: Resources, min_age: timedelta = MIN_AGE) -> AsyncIterator[list[str]]:
    """Yield the keys of objects without a record in batches. Raises OSError."""
    for kind in (IMAGES, VIDEOS):
        stats = resources.storage.list(f"{kind}s")
        while batch := await in_storage_thread(_next_batch, stats):
            latest = datetime.now(UTC) - min_age
            names = {stat.key: _names(stat.key, kind) for stat in batch if stat.modified <= latest}
            async with resources.database.read() as connection:
                existing = await store.existing(connection, kind, [*itertools.chain(*names.values())])
            if orphans := [key for key, key_names in names.items() if existing.isdisjoint(key_names)]:
                yield orphans


def _next_batch(stats: Iterator[ObjectStat]) -> list[ObjectStat]:
    return list(itertools.islice(stats, BATCH_SIZE))


def _names(key: str, kind: MediaKind) -> list[str]:
    """Return the names of the records to which an object may belong."""
    path = PurePosixPath(key)
    is_derived = len(path.parts) > 2 and path.parts[1] in _DERIVED  # noqa: PLR2004  (the area, and what is in it)
    return [f"{path.stem}{suffix}" for suffix in _SUFFIXES[kind]] if is_derived else [path.name]
