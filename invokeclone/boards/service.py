"""Boards beyond one statement: deleting one with its images, and moving images between boards; it knows no HTTP."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.boards import store
from invokeclone.boards.errors import ImageNotFound, NotYours
from invokeclone.boards.schemas import (
    AddImagesToBoardResult,
    BoardChanges,
    BoardDTO,
    DeleteBoardResult,
    RemoveImagesFromBoardResult,
)
from invokeclone.images import access
from invokeclone.images import service as images_service
from invokeclone.images import store as images_store
from invokeclone.images.schemas import NO_BOARD, Changed, Touched
from invokeclone.kit.resources import Resources
from invokeclone.users.current import User


async def update(connection: AsyncConnection, user: User, board_id: str, changes: BoardChanges) -> BoardDTO:
    """Change a board; raises BoardNotFound, NotYourBoard, and ImageNotFound or NotYours for the cover asked for."""
    await access.require_board_owned(connection, user, board_id)
    if changes.cover_image_name is not None:
        await access.require_readable(connection, user, access.IMAGES, changes.cover_image_name)
    return await store.update_board(connection, board_id, changes)


async def delete(resources: Resources, user: User, board_id: str, *, include_images: bool) -> DeleteBoardResult:
    """Delete a board; its images go as well if `include_images`, else they are on no board.

    Raises BoardNotFound, NotYourBoard.
    """
    if not include_images:
        async with resources.database.write() as connection:
            await access.require_board_owned(connection, user, board_id)
            freed = await store.delete_board(connection, board_id)
        return DeleteBoardResult(board_id=board_id, deleted_board_images=freed, deleted_images=[])

    async def delete_records(connection: AsyncConnection) -> list[Touched]:
        await access.require_board_owned(connection, user, board_id)
        await store.require(connection, board_id)
        gone = await images_store.delete_on_board(connection, board_id)
        await store.delete_board(connection, board_id)
        return gone

    gone = await images_service.delete_by(resources, delete_records)
    names = [one.place.name for one in gone]
    return DeleteBoardResult(board_id=board_id, deleted_board_images=[], deleted_images=names)


async def add_images(
    connection: AsyncConnection, user: User, board_id: str, names: Sequence[str]
) -> AddImagesToBoardResult:
    """Put the images of `names` that exist on a board, off whatever board they were on; only one's own are moved.

    Raises BoardNotFound, NotYourBoard.
    """
    await store.require(connection, board_id)
    await access.require_board_fillable(connection, user, board_id)
    allowed = await access.movable(connection, user, access.IMAGES, names)
    moved = Changed(await images_store.move_to_board(connection, allowed.names, board_id), allowed.refused)
    affected = sorted({board_id, *moved.boards}) if moved.done else []
    return AddImagesToBoardResult(affected_boards=affected, added_images=moved.names, failed_images=moved.refused)


async def add_image(connection: AsyncConnection, user: User, board_id: str, name: str) -> AddImagesToBoardResult:
    """Put one image on a board; raises BoardNotFound, NotYourBoard, ImageNotFound, NotYours."""
    result = await add_images(connection, user, board_id, [name])
    if result.failed_images:
        raise NotYours(name)
    if not result.added_images:
        raise ImageNotFound(name)
    return result


async def remove_images(connection: AsyncConnection, user: User, names: Sequence[str]) -> RemoveImagesFromBoardResult:
    """Take the images of `names` that exist, and that `user` may change, off their boards."""
    allowed = await access.changeable(connection, user, access.IMAGES, names)
    moved = Changed(await images_store.move_to_board(connection, allowed.names, None), allowed.refused)
    affected = sorted({NO_BOARD, *moved.boards}) if moved.done else []
    return RemoveImagesFromBoardResult(
        affected_boards=affected, removed_images=moved.names, failed_images=moved.refused
    )


async def remove_image(connection: AsyncConnection, user: User, name: str) -> RemoveImagesFromBoardResult:
    """Take one image off its board; raises ImageNotFound, NotYours."""
    result = await remove_images(connection, user, [name])
    if result.failed_images:
        raise NotYours(name)
    if not result.removed_images:
        raise ImageNotFound(name)
    return result
