"""Virtual board routes."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from invokeclone.boards import virtual
from invokeclone.boards.schemas import VirtualSubBoardDTO
from invokeclone.images import responses
from invokeclone.images.gallery import store as gallery
from invokeclone.images.gallery.schemas import GalleryItemNamesResult
from invokeclone.images.lists import search
from invokeclone.images.lists.parameters import Categories, Order, SearchTerm, StarredFirst
from invokeclone.images.media_kinds import IMAGES
from invokeclone.images.schemas import ImageFilter, ImageNamesResult
from invokeclone.kit.paging import SQLiteDirection
from invokeclone.kit.requests import Needs, Read, Reads
from invokeclone.users import rights
from invokeclone.users.current import CurrentUser

router = APIRouter(prefix="/api/v1/virtual_boards", tags=["virtual_boards"])


async def _virtual_board_filter(
    source: Reads,
    user: CurrentUser,
    starred_first: StarredFirst = True,
    order_dir: Order = SQLiteDirection.Descending,
    categories: Categories = None,
    search_term: SearchTerm = None,
) -> ImageFilter:
    image_filter = ImageFilter(
        owner=rights.scope(user),
        is_intermediate=False,
        starred_first=starred_first,
        order_dir=order_dir,
        categories=None if categories is None else tuple(categories),
        search_term=search_term,
    )
    return await search.with_text_query(source, image_filter)


VirtualBoardFilter = Annotated[ImageFilter, Depends(_virtual_board_filter)]
Date = Annotated[str, Path(description="The day in UTC, YYYY-MM-DD; the list is empty for any other text.")]


@router.get("/by_date")
async def list_virtual_boards_by_date(connection: Read, user: CurrentUser) -> list[VirtualSubBoardDTO]:
    """List a board for each day with images or videos, the newest first."""
    return await virtual.list_by_date(connection, rights.scope(user))


@router.get("/by_date/{date}/image_names", response_model=ImageNamesResult)
async def list_virtual_board_image_names_by_date(
    request: Request, needs: Needs, image_filter: VirtualBoardFilter, date: Date
) -> Response:
    """List the names of the images created on a day."""
    image_filter = image_filter.model_copy(update={"created_date": date})
    listed = await gallery.names_json(needs.database, image_filter, "image_names", (IMAGES,))
    return await responses.json_pieces(request, listed, needs.settings.http_compression_level)


@router.get("/by_date/{date}/item_names", response_model=GalleryItemNamesResult)
async def list_virtual_board_item_names_by_date(
    request: Request, needs: Needs, image_filter: VirtualBoardFilter, date: Date
) -> Response:
    """List kinds and names of the images and videos created on a day."""
    image_filter = image_filter.model_copy(update={"created_date": date})
    listed = await gallery.names_json(needs.database, image_filter, "items", with_kinds=True)
    return await responses.json_pieces(request, listed, needs.settings.http_compression_level)
