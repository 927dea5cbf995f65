"""Objects in the storage without a record: left by machines that never came back to settle their intents.

Also what processes that were killed have left of images of presets and workflows, which have no intents, of objects that
were half-written, and of objects that no record has.
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.images import store
from invokeclone.images.archives.ready_zips import by_zip
from invokeclone.images.encoding.record_images import record_id
from invokeclone.images.media_kinds import IMAGES, VIDEOS, MediaKind
from invokeclone.kit.resources import Resources
from invokeclone.kit.storage.addresses import AREAS, PROBE, ZIPS
from invokeclone.kit.storage.protocol import ObjectStat, ObjectStorage
from invokeclone.kit.storage.threads import in_storage_thread

MIN_AGE = timedelta(days=1)
"""Younger objects may belong to an upload or a run that has not created its record yet."""
BATCH_SIZE = 1000
_DERIVED = {"thumbnails", "sidecars"}
_SUFFIXES = {IMAGES: (".png", ".jpg", ".jpeg", ".webp"), VIDEOS: (".mp4",)}
"""Suffixes of the names to which a thumbnail or a sidecar file may belong."""

FindWithImage = Callable[[AsyncConnection, Sequence[str]], Awaitable[set[str]]]
"""Returns those of some record ids that have an image."""


async def find(
    resources: Resources, record_images: Mapping[str, FindWithImage], min_age: timedelta = MIN_AGE
) -> AsyncIterator[list[str]]:
    """Yield the keys of objects without a record in batches. `record_images` has the areas of `encoding/record_images.py`.

    Raises OSError.
    """
    storage = resources.storage
    for kind in (IMAGES, VIDEOS):
        async for keys in _old_keys(storage.list(f"{kind}s"), min_age):
            names = {key: _names(key, kind) for key in keys}
            async with resources.database.read() as connection:
                existing = await store.existing(connection, kind, [*itertools.chain(*names.values())])
            if orphans := [key for key, key_names in names.items() if existing.isdisjoint(key_names)]:
                yield orphans
    for area, find_with_image in record_images.items():
        async for keys in _old_keys(storage.list(area), min_age):
            ids = {key: id_ for key in keys if (id_ := record_id(key)) is not None}
            async with resources.database.read() as connection:
                with_image = await find_with_image(connection, list(ids.values()))
            if orphans := [key for key, id_ in ids.items() if id_ not in with_image]:
                yield orphans
    areas = (ZIPS, PROBE) if resources.database.is_shared else (PROBE,)
    partial = [storage.list_partial(area) for area in (*AREAS, *areas)]
    zips = _zips(storage) if ZIPS in areas else iter(())
    async for keys in _old_keys(itertools.chain(zips, storage.list(PROBE), *partial), min_age):
        yield keys


def _zips(storage: ObjectStorage) -> Iterator[ObjectStat]:
    """Yield zip files and the marks of those that are being sent, all with the time of the later of both."""
    for stats in by_zip(storage.list(ZIPS)).values():
        modified = max(stat.modified for stat in stats)
        yield from (stat._replace(modified=modified) for stat in stats)


async def _old_keys(stats: Iterator[ObjectStat], min_age: timedelta) -> AsyncIterator[list[str]]:
    """Yield the keys of objects that are not younger than `min_age` in batches."""
    while batch := await in_storage_thread(_next_batch, stats):
        latest = datetime.now(UTC) - min_age
        if keys := [stat.key for stat in batch if stat.modified <= latest]:
            yield keys


def _next_batch(stats: Iterator[ObjectStat]) -> list[ObjectStat]:
    return list(itertools.islice(stats, BATCH_SIZE))


def _names(key: str, kind: MediaKind) -> list[str]:
    """Return the names of the records to which an object may belong."""
    path = PurePosixPath(key)
    is_derived = len(path.parts) > 2 and path.parts[1] in _DERIVED  # noqa: PLR2004  (the area, and what is in it)
    return [f"{path.stem}{suffix}" for suffix in _SUFFIXES[kind]] if is_derived else [path.name]
