"""Boards beyond one statement: deleting one with its images, and moving images between boards; it knows no HTTP."""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from invokeclone.boards import store
from invokeclone.boards.errors import ImageNotFound
from invokeclone.boards.schemas import AddImagesToBoardResult, DeleteBoardResult, RemoveImagesFromBoardResult
from invokeclone.images import service as images_service
from invokeclone.images import store as images_store
from invokeclone.images.schemas import NO_BOARD, Touched, boards_of
from invokeclone.kit.resources import Resources


async def delete(resources: Resources, board_id: str, *, include_images: bool) -> DeleteBoardResult:
    """Delete a board; its images go as well if `include_images`, else they are on no board. Raises BoardNotFound."""
    if not include_images:
        async with resources.database.write() as connection:
            freed = await store.delete_board(connection, board_id)
        return DeleteBoardResult(board_id=board_id, deleted_board_images=freed, deleted_images=[])

    async def delete_records(connection: AsyncConnection) -> list[Touched]:
        await store.require(connection, board_id)
        gone = await images_store.delete_on_board(connection, board_id)
        await store.delete_board(connection, board_id)
        return gone

    gone = await images_service.delete_by(resources, delete_records)
    names = [one.place.name for one in gone]
    return DeleteBoardResult(board_id=board_id, deleted_board_images=[], deleted_images=names)


async def add_images(connection: AsyncConnection, board_id: str, names: Sequence[str]) -> AddImagesToBoardResult:
    """Put the images of `names` that exist on a board, off whatever board they were on; raises BoardNotFound."""
    await store.require(connection, board_id)
    moved = await images_store.move_to_board(connection, names, board_id)
    affected = sorted({board_id, *boards_of(moved)}) if moved else []
    added = [one.place.name for one in moved]
    return AddImagesToBoardResult(affected_boards=affected, added_images=added, failed_images=[])


async def add_image(connection: AsyncConnection, board_id: str, name: str) -> AddImagesToBoardResult:
    """Put one image on a board; raises BoardNotFound, ImageNotFound."""
    result = await add_images(connection, board_id, [name])
    if not result.added_images:
        raise ImageNotFound(name)
    return result


async def remove_images(connection: AsyncConnection, names: Sequence[str]) -> RemoveImagesFromBoardResult:
    """Take the images of `names` that exist off their boards."""
    moved = await images_store.move_to_board(connection, names, None)
    affected = sorted({NO_BOARD, *boards_of(moved)}) if moved else []
    removed = [one.place.name for one in moved]
    return RemoveImagesFromBoardResult(affected_boards=affected, removed_images=removed, failed_images=[])


async def remove_image(connection: AsyncConnection, name: str) -> RemoveImagesFromBoardResult:
    """Take one image off its board; raises ImageNotFound."""
    result = await remove_images(connection, [name])
    if not result.removed_images:
        raise ImageNotFound(name)
    return result
