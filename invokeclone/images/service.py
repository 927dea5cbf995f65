"""Image operations: upload, save, delete, reading files. Both the server and the workers use them.

Files are written before records; records are deleted before files; deletions are emitted as events.
"""

import io
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from PIL import Image as PILImage
from PIL.Image import Image
from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images import access, files, intent_log, store, thumbnails
from invokeclone.images.deletion import Deleted, delete_records_and_files
from invokeclone.images.encoding import embedded_metadata, png
from invokeclone.images.encoding import upload as upload_files
from invokeclone.images.errors import BoardNotFound, ImageNotFound, ImageNotYours, NotAnImage
from invokeclone.images.image_work import image_work, process, whole_file
from invokeclone.images.media_kinds import IMAGES, MediaKind
from invokeclone.images.schemas import (
    AffectedItem,
    BulkChange,
    ImageDTO,
    ImageLocation,
    NewImage,
    NewRecord,
    WorkflowAndGraphResponse,
)
from invokeclone.images.thumbnails import NotDecodable
from invokeclone.kit import log
from invokeclone.kit.files.storage_errors import to_storage_error
from invokeclone.kit.resources import Resources
from invokeclone.kit.storage.protocol import StoredFile
from invokeclone.kit.storage.threads import in_storage_thread
from invokeclone.users import rights
from invokeclone.users.current import SYSTEM, User

Check = Callable[[AsyncConnection], Awaitable[None]]
"""Runs in the transaction of a new record, before it is inserted, and raises an error to refuse it."""

_log = log.get("images")


async def upload(
    resources: Resources,
    data: bytes,
    *,
    content_type: str | None,
    category: ImageCategory,
    is_intermediate: bool,
    board_id: str | None = None,
    session_id: str | None = None,
    crop_visible: bool = False,
    resize_to: str | None = None,
    metadata: str | None = None,
    user: User = SYSTEM,
) -> ImageDTO:
    """Store an uploaded image. All checks run before anything is written, in this order.

    Raises BoardNotFound, NotYourBoard, NotAnImage (by content type, then by content), TooManyPixels, NothingVisible,
    InvalidSize.
    """
    await require_fillable(resources, user, board_id)
    if not (content_type or "").startswith("image"):
        raise NotAnImage(f"the content type {content_type!r} is not an image type")
    settings = resources.settings
    location = new_location(resources, "png", category, is_intermediate=is_intermediate)

    def prepare() -> tuple[upload_files.PreparedUpload, bytes]:
        prepared = upload_files.prepare(
            data,
            crop_visible=crop_visible,
            resize_to=resize_to,
            metadata=metadata,
            level=settings.pil_compress_level,
            limits=settings.limits,
        )
        return prepared, files.thumbnail(prepared.image)

    prepared, webp = await image_work(prepare)
    new = NewImage(
        image_name=location.name,
        image_origin=ResourceOrigin.EXTERNAL,
        image_category=category,
        width=prepared.image.width,
        height=prepared.image.height,
        session_id=session_id,
        metadata=prepared.texts.get(png.METADATA),
        is_intermediate=is_intermediate,
        has_workflow=png.WORKFLOW in prepared.texts or png.GRAPH in prepared.texts,
        image_subfolder=location.subfolder,
        board_id=board_id,
        user_id=user.user_id,
    )

    def write_files(intent: intent_log.Intent) -> None:
        intent.write(IMAGES, [location])
        files.write(resources.storage, location, prepared.png, webp)

    async with intent_log.open_intent(resources) as intent:
        await in_storage_thread(intent.run, write_files)
        return ImageDTO.model_validate(await create_record(resources, new, location))


async def save(
    resources: Resources,
    image: Image,
    *,
    category: ImageCategory,
    origin: ResourceOrigin,
    is_intermediate: bool = False,
    board_id: str | None = None,
    session_id: str | None = None,
    node_id: str | None = None,
    metadata: str | None = None,
    workflow: str | None = None,
    graph: str | None = None,
    user_id: str = "system",
    check: Check | None = None,
) -> ImageDTO:
    """Store a generated image; `metadata`, `workflow` and `graph` are JSON text and are embedded unchanged.

    If the board does not exist, the image is stored without it and a warning is logged. `image` must not change until
    this returns. `check` may refuse the record.
    """
    settings = resources.settings
    location = new_location(resources, "png", category, is_intermediate=is_intermediate)
    texts = embedded_metadata.texts(metadata, workflow, graph)

    new = NewImage(
        image_name=location.name,
        image_origin=origin,
        image_category=category,
        width=image.width,
        height=image.height,
        session_id=session_id,
        node_id=node_id,
        metadata=metadata,
        is_intermediate=is_intermediate,
        has_workflow=workflow is not None or graph is not None,
        image_subfolder=location.subfolder,
        board_id=board_id,
        user_id=user_id,
    )

    def encode() -> tuple[bytes, bytes]:
        return png.encode(image, settings.pil_compress_level, texts), files.thumbnail(image)

    async with whole_file():
        packed, small = await image_work(encode)
        return await _store(resources, new, packed, small, check)


async def save_encoded(
    resources: Resources,
    new: NewImage,
    packed: bytes,
    small: bytes,
    check: Callable[[AsyncConnection], Awaitable[None]],
) -> ImageDTO:
    """Store an image that is encoded already, and its thumbnail; `check` may refuse the record in its transaction."""
    return await _store(resources, new, packed, small, check)


async def _store(resources: Resources, new: NewImage, packed: bytes, small: bytes, check: Check | None) -> ImageDTO:
    """Write the files of an image, then its record, which `check` may refuse."""
    location = ImageLocation(new.image_name, new.image_subfolder)

    def write_files(intent: intent_log.Intent) -> None:
        intent.write(IMAGES, [location])
        files.write(resources.storage, location, packed, small)

    async with intent_log.open_intent(resources) as intent:
        await in_storage_thread(intent.run, write_files)
        return ImageDTO.model_validate(await create_record(resources, new, location, check=check))


async def require_fillable(resources: Resources, user: User, board_id: str | None) -> None:
    """Raise BoardNotFound, or NotYourBoard when `user` may not add items to the board; accepts no board."""
    if board_id is not None:
        async with resources.database.read() as connection:
            if not await store.board_exists(connection, board_id):
                raise BoardNotFound(board_id)
            await access.require_board_fillable(connection, user, board_id)


def new_location(
    resources: Resources, extension: str, category: ImageCategory, *, is_intermediate: bool
) -> ImageLocation:
    """Return a new name and its subfolder according to the settings."""
    name = f"{uuid4()}.{extension}"
    strategy = resources.settings.image_subfolder_strategy
    return ImageLocation(name, files.subfolder(strategy, name, category, is_intermediate=is_intermediate))


async def create_record(
    resources: Resources,
    new: NewRecord,
    location: ImageLocation,
    kind: MediaKind = IMAGES,
    check: Check | None = None,
) -> dict[str, Any]:
    """Create the record of files just written and return the fields of its DTO; on an error the files are removed."""
    async with resources.database.write() as connection:
        if check is not None:
            await check(connection)
        fields = await store.add(connection, kind, new)
    if fields["board_id"] != new.board_id:
        _log.warning(
            "%s %s was not added to board %s because the board does not exist or is not writable",
            kind,
            location.name,
            new.board_id,
        )
    return fields


async def get(resources: Resources, name: str, user: User = SYSTEM) -> ImageDTO:
    """Return an image's record; raises ImageNotYours, ImageNotFound."""
    await access.require_readable(resources.database, user, access.IMAGES, name)
    return await store.get(resources.database, name)


async def upright_size(resources: Resources, record: ImageDTO) -> tuple[int, int]:
    """Return width and height of an image as nodes see it; its file may be rotated if it was uploaded."""
    size = record.width, record.height
    if record.image_origin != ResourceOrigin.EXTERNAL:
        return size
    location = ImageLocation(record.image_name, record.image_subfolder)
    turned = await in_storage_thread(files.is_turned, StoredFile(resources.storage, files.full_key(location)))
    return size[::-1] if turned else size


async def metadata_json(resources: Resources, name: str, user: User = SYSTEM) -> str | None:
    """Return an image's metadata as JSON text; raises ImageNotYours, ImageNotFound."""
    await access.require_readable(resources.database, user, access.IMAGES, name)
    return await store.metadata_json(resources.database, name)


async def file(
    resources: Resources, name: str, *, thumbnail: bool = False, user: User = SYSTEM, kind: MediaKind = IMAGES
) -> StoredFile:
    """Return the file of an image or video, whether it exists or not.

    Raises ImageNotYours, or the kind's error when it does not exist.
    """
    await access.require_readable(resources.database, user, kind, name)
    location = await store.get_location(resources.database, name, kind)
    key = (files.thumbnail_key if thumbnail else files.full_key)(location, kind)
    return StoredFile(resources.storage, key)


async def texts(resources: Resources, name: str, user: User = SYSTEM) -> WorkflowAndGraphResponse:
    """Return the workflow and the graph embedded in an image; raises ImageNotYours, ImageNotFound."""
    stored = await file(resources, name, user=user)
    try:
        embedded_texts = await in_storage_thread(lambda: png.read_embedded_texts(stored.source()))
    except OSError as error:
        if to_storage_error(error) is not None:  # it may be there
            raise
        raise ImageNotFound(name) from error
    return WorkflowAndGraphResponse(workflow=embedded_texts.get(png.WORKFLOW), graph=embedded_texts.get(png.GRAPH))


async def regenerate_thumbnail(resources: Resources, name: str) -> bytes:
    """Create a lost thumbnail again; raises ImageNotFound when the image file is missing or damaged, too."""

    def decode(source: Path | io.BytesIO) -> bytes:
        try:
            return files.shrink(source)
        except FileNotFoundError:
            raise
        except (*upload_files.DECODE_ERRORS, PILImage.DecompressionBombError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise NotDecodable(ImageNotFound(name)) from error

    async def make(location: ImageLocation) -> bytes:
        return await process(StoredFile(resources.storage, files.full_key(location)).source, decode)

    return await thumbnails.regenerate(resources, name, IMAGES, make)


async def delete(resources: Resources, name: str, user: User = SYSTEM, kind: MediaKind = IMAGES) -> BulkChange:
    """Delete one image or video.

    Raises ImageNotYours, or the kind's error when it does not exist; non-admins get ImageNotYours in both cases.
    """
    change = await delete_many(resources, [name], user, kind)
    if change.refused or (not change.items and not user.is_admin):
        raise ImageNotYours(name)
    if not change.items:
        raise kind.not_found_error(name)
    return change


async def delete_many(
    resources: Resources, names: Sequence[str], user: User = SYSTEM, kind: MediaKind = IMAGES
) -> BulkChange:
    """Delete those of `names` that exist and that `user` may delete; return them and the refused names."""
    refused: list[str] = []

    async def delete_records(connection: AsyncConnection) -> Deleted:
        allowed = await access.changeable(connection, user, kind, names)
        refused[:] = allowed.refused
        return {kind: await store.delete_selection(connection, store.select_named(allowed.names, kind))}

    deleted = await delete_records_and_files(resources, [store.select_named(names, kind)], delete_records)
    return BulkChange(deleted[kind], refused)


async def set_starred(
    connection: AsyncConnection, names: Sequence[str], user: User, *, starred: bool, kind: MediaKind = IMAGES
) -> BulkChange:
    """Star or unstar those of `names` that exist and that `user` may change."""
    allowed = await access.changeable(connection, user, kind, names)
    return BulkChange(await store.set_starred(connection, allowed.names, starred=starred, kind=kind), allowed.refused)


async def delete_intermediates(resources: Resources) -> list[AffectedItem]:
    """Delete all intermediate images and return them."""
    return (await delete_records_and_files(resources, [store.select_intermediates()]))[IMAGES]


async def delete_uncategorized(
    resources: Resources, user: User = SYSTEM, kind: MediaKind = IMAGES
) -> list[AffectedItem]:
    """Delete all items of `user` (for an admin: of all users) that are on no board, and return them."""
    owner = rights.scope(user)
    return (await delete_records_and_files(resources, [store.select_on_board(None, owner, kind)]))[kind]
