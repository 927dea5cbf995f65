"""Gallery routes."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from invokeclone.images import responses
from invokeclone.images.gallery import store
from invokeclone.images.gallery.schemas import GalleryItem, GalleryItemNames, GalleryItemNamesResult
from invokeclone.images.lists.parameters import Limit, ListFilter, Offset, Origin
from invokeclone.kit.paging import OffsetPaginatedResults
from invokeclone.kit.requests import Needs, Reads

router = APIRouter(prefix="/api/v1/gallery", tags=["gallery"])

Date = Annotated[str | None, Query(description="Only items created on this day in UTC, YYYY-MM-DD.")]


@router.get("/items/", response_model=OffsetPaginatedResults[GalleryItem])
async def list_gallery_items(
    source: Reads, image_filter: ListFilter, offset: Offset, origin: Origin = None, limit: Limit = 10
) -> Response:
    """List a page of images and videos."""
    page = await store.page_json(source, image_filter.model_copy(update={"origin": origin}), offset, limit)
    return Response(page, media_type="application/json")


@router.get("/item_names", response_model=GalleryItemNames)
async def list_gallery_item_names(
    request: Request,
    needs: Needs,
    source: Reads,
    image_filter: ListFilter,
    origin: Origin = None,
    created_date: Date = None,
) -> Response:
    """List the names of all images and videos in list order."""
    image_filter = image_filter.model_copy(update={"origin": origin, "created_date": created_date})
    listed = await store.names_json(source, image_filter, "item_names")
    return await responses.json_pieces(request, listed, needs.settings.http_compression_level)


@router.get("/items/names", response_model=GalleryItemNamesResult)
async def get_gallery_item_names(
    request: Request, needs: Needs, source: Reads, image_filter: ListFilter, origin: Origin = None
) -> Response:
    """List kinds and names of all images and videos in list order; `item_names` returns less data."""
    listed = await store.names_json(
        source, image_filter.model_copy(update={"origin": origin}), "items", with_kinds=True
    )
    return await responses.json_pieces(request, listed, needs.settings.http_compression_level)
