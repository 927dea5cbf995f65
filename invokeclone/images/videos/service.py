"""Video operations: upload with a limit on concurrency, files (the video last), and texts in sidecar files.

Access rights, records and deletion are shared with images (see `images/service.py`).
"""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import orjson
from anyio import CancelScope, CapacityLimiter

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import access, files, intent_log, service, store, thumbnails
from invokeclone.images.encoding import png
from invokeclone.images.errors import NotAVideo, TooManyUploads, VideoNotDecoded
from invokeclone.images.media_kinds import VIDEOS
from invokeclone.images.schemas import BulkChange, ImageLocation, WorkflowAndGraphResponse
from invokeclone.images.thumbnails import NotDecodable
from invokeclone.images.videos import uploads as video_files
from invokeclone.images.videos.schemas import NewVideo, VideoDTO
from invokeclone.images.videos.upload_form import receive
from invokeclone.kit.config.limits import MIB
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.storage import make_folder, remove_file
from invokeclone.kit.process.loop_local import LoopLocal
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.kit.sql.prepared_statements import Source
from invokeclone.kit.storage.protocol import ObjectStorage, StoredFile
from invokeclone.kit.storage.threads import in_storage_thread
from invokeclone.users.current import SYSTEM, User

MAX_CONCURRENT = 2
STALE_UPLOAD_S = 24 * 3600
_INSPECTIONS = LoopLocal("videos that are fetched and decoded again at a time", lambda: CapacityLimiter(MAX_CONCURRENT))
_PARTS: LoopLocal[set[str]] = LoopLocal("names of unfinished files of videos in use", set)
_UPLOADING: LoopLocal[set[str]] = LoopLocal("users who are uploading a video", set)


@contextmanager
def _upload_slot(user: User) -> Iterator[None]:
    """Hold an upload slot; raises TooManyUploads when all slots are taken, or this user has one."""
    uploading = _UPLOADING.get()
    if len(uploading) >= MAX_CONCURRENT or user.user_id in uploading:
        raise TooManyUploads
    uploading.add(user.user_id)
    try:
        yield
    finally:
        uploading.discard(user.user_id)


async def upload(
    resources: Resources,
    body: AsyncIterator[bytes],
    content_type: str,
    *,
    category: ImageCategory,
    is_intermediate: bool,
    board_id: str | None = None,
    session_id: str | None = None,
    user: User = SYSTEM,
) -> VideoDTO:
    """Store an uploaded video. The checks run in this order, the first three before the body is read.

    Raises TooManyUploads, BoardNotFound, NotYourBoard; NotAVideo (by name), FormNotReadable, VideoTooLarge,
    MetadataTooLarge, MetadataNotObject, NotAVideo (by content).
    """
    settings = resources.settings
    with _upload_slot(user):
        await service.require_fillable(resources, user, board_id)
        async with _part_file(settings) as part:
            form = await receive(
                body, content_type, part, video_files.require_mp4_type, settings.limits.video_mib * MIB
            )
            metadata = video_files.metadata(form.metadata, settings.limits)
            info = await video_files.inspect(part)
            location = service.new_location(resources, "mp4", category, is_intermediate=is_intermediate)
            new = NewVideo(
                video_name=location.name,
                video_origin=ResourceOrigin.EXTERNAL,
                video_category=category,
                video_subfolder=location.subfolder,
                width=info.width,
                height=info.height,
                duration=info.duration,
                fps=info.fps,
                session_id=session_id,
                metadata=metadata,
                is_intermediate=is_intermediate,
                board_id=board_id,
                user_id=user.user_id,
            )
            texts = {} if metadata is None else {png.METADATA: metadata}

            def store_files(intent: intent_log.Intent) -> None:
                intent.write(VIDEOS, [location])
                _store_files(resources.storage, part, location, info.webp, texts)

            async with intent_log.open_intent(resources) as intent:
                await in_storage_thread(intent.run, store_files)
                return VideoDTO.model_validate(await service.create_record(resources, new, location, VIDEOS))


@asynccontextmanager
async def _part_file(settings: Settings) -> AsyncIterator[Path]:
    """Give the path of a file that is removed after the block; removes those that a crash left more than a day ago."""
    part, in_use = files.uploads_folder(settings) / f"{uuid4()}.part", _PARTS.get()
    in_use.add(part.name)
    try:
        await in_thread(_remove_old_parts, part.parent, frozenset(in_use))
        yield part
    finally:
        with CancelScope(shield=True):
            await in_thread(remove_file, part)
        in_use.discard(part.name)


def _remove_old_parts(folder: Path, in_use: frozenset[str]) -> None:
    """Remove old files but those in use, which seem to be old after the clock was set forward."""
    make_folder(folder)
    for old in folder.iterdir():
        with suppress(FileNotFoundError):
            if old.name not in in_use and old.stat().st_mtime < time.time() - STALE_UPLOAD_S:
                old.unlink()


def _store_files(
    storage: ObjectStorage, part: Path, location: ImageLocation, webp: bytes, texts: dict[str, str]
) -> None:
    """Move all files of a video to their locations, the video last; raises OSError with none left there."""
    try:
        storage.write(files.thumbnail_key(location, VIDEOS), webp)
        if texts:
            storage.write(files.sidecar_key(location), orjson.dumps(texts))
        storage.write_file(files.full_key(location, VIDEOS), part)
    except BaseException:
        files.remove(storage, [location], VIDEOS)
        raise


async def get(source: Source, user: User, name: str) -> VideoDTO:
    """Return a video's record; raises ImageNotYours, VideoNotFound."""
    await access.require_readable(source, user, VIDEOS, name)
    return VideoDTO.model_validate(await store.fields(source, VIDEOS, name))


async def texts(resources: Resources, name: str, user: User = SYSTEM) -> WorkflowAndGraphResponse:
    """Return the workflow and the graph stored with a video; raises ImageNotYours, VideoNotFound."""
    await access.require_readable(resources.database, user, VIDEOS, name)
    location = await store.get_location(resources.database, name, VIDEOS)
    sidecar = await in_storage_thread(_read_sidecar, resources.storage, files.sidecar_key(location))
    return WorkflowAndGraphResponse(workflow=sidecar.get(png.WORKFLOW), graph=sidecar.get(png.GRAPH))


def _read_sidecar(storage: ObjectStorage, key: str) -> dict[str, str]:
    """Return the texts in a video's sidecar file, empty without one."""
    try:
        content = orjson.loads(storage.get(key))
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return {key: text for key, text in content.items() if isinstance(text, str)} if isinstance(content, dict) else {}


async def regenerate_thumbnail(resources: Resources, name: str) -> bytes:
    """Create a lost thumbnail again; raises VideoNotFound when the video file is missing too, NotAVideo for a damaged one."""

    async def make(location: ImageLocation) -> bytes:
        stored = StoredFile(resources.storage, files.full_key(location, VIDEOS))
        async with _INSPECTIONS.get(), _local_file(resources, stored) as path:
            try:
                return (await video_files.inspect(path)).webp
            except VideoNotDecoded:  # not remembered
                raise
            except NotAVideo as error:
                raise NotDecodable(error) from error

    return await thumbnails.regenerate(resources, name, VIDEOS, make)


@asynccontextmanager
async def _local_file(resources: Resources, stored: StoredFile) -> AsyncIterator[Path]:
    """Give the path of a file, for a process that reads it: of a copy for the time of the block if it is not local."""
    if stored.path is not None:
        yield stored.path
        return
    async with _part_file(resources.settings) as part:
        await in_storage_thread(stored.fetch, part)
        yield part


def names_not_changed(names: list[str], change: BulkChange) -> list[str]:
    """Return the requested names that were not changed: missing, or another user's."""
    changed_names = set(change.names)
    return [name for name in dict.fromkeys(names) if name not in changed_names]
