"""Board operations: updating and deleting boards, adding and removing images and videos."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.boards import store
from invokeclone.boards.errors import ImageNotYours
from invokeclone.boards.schemas import BoardChanges, BoardDTO, DeleteBoardResult
from invokeclone.images import access
from invokeclone.images import store as images_store
from invokeclone.images.deletion import Deleted, delete_records_and_files
from invokeclone.images.media_kinds import IMAGES, VIDEOS, MediaKind
from invokeclone.images.schemas import NO_BOARD, BulkChange
from invokeclone.kit.resources import Resources
from invokeclone.users.current import User


async def update(connection: AsyncConnection, user: User, board_id: str, changes: BoardChanges) -> BoardDTO:
    """Change a board; raises BoardNotFound, NotYourBoard, and ImageNotFound or ImageNotYours for the cover."""
    await access.require_board_owned(connection, user, board_id)
    if changes.cover_image_name is not None:
        await access.require_readable(connection, user, access.IMAGES, changes.cover_image_name)
    return await store.update_board(connection, board_id, changes)


async def delete(resources: Resources, user: User, board_id: str, *, include_images: bool) -> DeleteBoardResult:
    """Delete a board; deletes its images and videos if `include_images`, else they are on no board.

    Raises BoardNotFound, NotYourBoard.
    """
    if not include_images:
        async with resources.database.write() as connection:
            await _require_deletable(connection, user, board_id)
            names = [await store.names(connection, board_id, kind) for kind in (IMAGES, VIDEOS)]
            await store.delete_board(connection, board_id)
        return DeleteBoardResult(
            board_id=board_id, deleted_board_images=names[0], deleted_images=[], deleted_board_videos=names[1]
        )
    selections = [images_store.select_on_board(board_id, kind=kind) for kind in (IMAGES, VIDEOS)]

    async def delete_records(connection: AsyncConnection) -> Deleted:
        await _require_deletable(connection, user, board_id)
        items = {part.kind: await images_store.delete_selection(connection, part) for part in selections}
        await store.delete_board(connection, board_id)
        return items

    deleted = await delete_records_and_files(resources, selections, delete_records)
    images, videos = ([item.location.name for item in deleted[kind]] for kind in (IMAGES, VIDEOS))
    return DeleteBoardResult(board_id=board_id, deleted_board_images=[], deleted_images=images, deleted_videos=videos)


async def _require_deletable(connection: AsyncConnection, user: User, board_id: str) -> None:
    """Raise BoardNotFound or NotYourBoard unless `user` may delete the board."""
    await access.require_board_owned(connection, user, board_id)
    await store.require(connection, board_id)


class BoardMove(NamedTuple):
    """Items moved to or off a board, the affected boards, and the items refused as another user's."""

    boards: list[str]
    names: list[str]
    refused: list[str]


async def add(
    connection: AsyncConnection, user: User, board_id: str, names: Sequence[str], kind: MediaKind = IMAGES
) -> BoardMove:
    """Move those of `names` that exist and that `user` owns to a board.

    Raises BoardNotFound, NotYourBoard.
    """
    await store.require(connection, board_id)
    await access.require_board_fillable(connection, user, board_id)
    allowed = await access.movable(connection, user, kind, names)
    return await _move(connection, kind, allowed, board_id)


async def remove(connection: AsyncConnection, user: User, names: Sequence[str], kind: MediaKind = IMAGES) -> BoardMove:
    """Remove those of `names` that exist and that `user` may change from their boards."""
    return await _move(connection, kind, await access.changeable(connection, user, kind, names), None)


async def _move(
    connection: AsyncConnection, kind: MediaKind, allowed: access.Allowed, board_id: str | None
) -> BoardMove:
    change = BulkChange(await images_store.move_to_board(connection, allowed.names, board_id, kind))
    affected = sorted({board_id or NO_BOARD, *change.boards}) if change.items else []
    return BoardMove(affected, change.names, allowed.refused)


def single(result: BoardMove, name: str, kind: MediaKind = IMAGES) -> BoardMove:
    """Return the result for a single item; raises ImageNotYours, or the kind's error when no item has this name."""
    if result.refused:
        raise ImageNotYours(name)
    if not result.names:
        raise kind.not_found_error(name)
    return result
