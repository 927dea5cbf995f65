"""Board routes, including those that add images to boards."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Response

from invokeclone.boards import service, store
from invokeclone.boards.errors import BoardNotFound, MissingPage
from invokeclone.boards.schemas import (
    AddImagesToBoardResult,
    BoardChanges,
    BoardDTO,
    BoardName,
    BoardRecordOrderBy,
    DeleteBoardResult,
    RemoveImagesFromBoardResult,
)
from invokeclone.boards.service import BoardMove
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images import access
from invokeclone.images.schemas import ImageNames
from invokeclone.kit.paging import OffsetPaginatedResults, SQLiteDirection, check_page
from invokeclone.kit.requests import Needs, Reads, Write
from invokeclone.users.current import CurrentUser

router = APIRouter(prefix="/api/v1", tags=["boards"])

BoardId = Annotated[str, Path(description="The id of the board.")]
TargetBoard = Annotated[str, Body(description="The id of the board.")]
ImageName = Annotated[str, Body(description="The name of the image.")]
ImageNamesBody = Annotated[ImageNames, Body(description="The names of the images.")]


def _json(content: bytes | str) -> Response:
    return Response(content, media_type="application/json")


@router.post("/boards/", status_code=201, response_model=BoardDTO)
async def create_board(
    needs: Needs, user: CurrentUser, board_name: Annotated[BoardName, Query(description="The name.")]
) -> Response:
    """Create a board."""
    async with needs.database.write() as connection:
        board = await store.create(connection, board_name, user.user_id)
    return Response(board.model_dump_json(), 201, media_type="application/json")


@router.get("/boards/", response_model=OffsetPaginatedResults[BoardDTO] | list[BoardDTO])
async def list_boards(
    needs: Needs,
    user: CurrentUser,
    order_by: Annotated[BoardRecordOrderBy, Query(description="Sort key.")] = BoardRecordOrderBy.CreatedAt,
    direction: Annotated[SQLiteDirection, Query(description="Sort direction.")] = SQLiteDirection.Descending,
    all: Annotated[bool | None, Query(description="Whether to list all boards instead of a page.")] = None,  # noqa: A002
    offset: Annotated[int | None, Query(description="Number of boards to skip.")] = None,
    limit: Annotated[int | None, Query(description="Maximum number of boards to list.")] = None,
    include_archived: Annotated[bool, Query(description="Whether to list archived boards too.")] = False,
) -> Response:
    """List boards: all of them, or a page."""
    if all:
        return _json(
            await store.list_all_json(needs.database, order_by, direction, include_archived=include_archived, user=user)
        )
    if offset is None or limit is None or offset < 0 or limit < 0:
        raise MissingPage
    check_page(limit, needs.settings.limits, "limit")
    async with needs.database.read() as connection:
        page = await store.page(
            connection, offset, limit, order_by, direction, include_archived=include_archived, user=user
        )
    return _json(page.model_dump_json())


@router.get("/boards/{board_id}")
async def get_board(source: Reads, user: CurrentUser, board_id: BoardId) -> BoardDTO:
    """Get a board."""
    await access.require_board_readable(source, user, board_id)
    return await store.get(source, board_id)


@router.patch("/boards/{board_id}", status_code=201)
async def update_board(connection: Write, user: CurrentUser, board_id: BoardId, changes: BoardChanges) -> BoardDTO:
    """Change a board's name, visibility, cover, or whether it is archived."""
    return await service.update(connection, user, board_id, changes)


@router.delete("/boards/{board_id}")
async def delete_board(
    needs: Needs,
    user: CurrentUser,
    board_id: BoardId,
    include_images: Annotated[bool | None, Query(description="Whether to delete its images as well.")] = False,
) -> DeleteBoardResult:
    """Delete a board."""
    return await service.delete(needs, user, board_id, include_images=bool(include_images))


@router.get("/boards/{board_id}/image_names", response_model=list[str])
async def list_all_board_image_names(
    source: Reads,
    user: CurrentUser,
    board_id: BoardId,
    categories: Annotated[list[ImageCategory] | None, Query(description="Only these categories.")] = None,
    is_intermediate: Annotated[
        bool | None, Query(description="Only intermediates (true) or only non-intermediates (false).")
    ] = None,
) -> Response:
    """List the names of the images on a board, or of those on no board ("none")."""
    owner = await access.list_owner(source, user, board_id)
    names = await store.image_names_json(source, board_id, categories, is_intermediate=is_intermediate, owner=owner)
    if names is None:
        raise BoardNotFound(board_id)
    return _json(names)


def _add_result(result: BoardMove) -> AddImagesToBoardResult:
    return AddImagesToBoardResult(
        affected_boards=result.boards, added_images=result.names, failed_images=result.refused
    )


def _remove_result(result: BoardMove) -> RemoveImagesFromBoardResult:
    return RemoveImagesFromBoardResult(
        affected_boards=result.boards, removed_images=result.names, failed_images=result.refused
    )


@router.post("/board_images/", status_code=201)
async def add_image_to_board(
    connection: Write, user: CurrentUser, board_id: TargetBoard, image_name: ImageName
) -> AddImagesToBoardResult:
    """Move an image to a board."""
    return _add_result(service.single(await service.add(connection, user, board_id, [image_name]), image_name))


@router.delete("/board_images/", status_code=201)
async def remove_image_from_board(
    connection: Write,
    user: CurrentUser,
    image_name: Annotated[str, Body(embed=True, description="The name of the image.")],
) -> RemoveImagesFromBoardResult:
    """Remove an image from its board."""
    return _remove_result(service.single(await service.remove(connection, user, [image_name]), image_name))


@router.post("/board_images/batch", status_code=201)
async def add_images_to_board(
    connection: Write, user: CurrentUser, board_id: TargetBoard, image_names: ImageNamesBody
) -> AddImagesToBoardResult:
    """Move several images to a board."""
    return _add_result(await service.add(connection, user, board_id, image_names))


@router.post("/board_images/batch/delete", status_code=201)
async def remove_images_from_board(
    connection: Write,
    user: CurrentUser,
    image_names: Annotated[ImageNames, Body(embed=True, description="The names of the images.")],
) -> RemoveImagesFromBoardResult:
    """Remove several images from their boards."""
    return _remove_result(await service.remove(connection, user, image_names))
