"""The video routes: what is asked and answered; no SQL, no files. What 6.8.1 calls a video's id is its name."""

from fastapi import APIRouter, Request, Response

from invokeclone.images import media, store
from invokeclone.images.kinds import VIDEOS
from invokeclone.images.listing import Limit, Offset, Origin, Wanted
from invokeclone.images.videos.schemas import (
    VideoDTO,
    VideoIdsResult,
    VideoNamesResult,
)
from invokeclone.kit.paging import OffsetPaginatedResults
from invokeclone.kit.requests import Needs, Read

router = APIRouter(prefix="/api/v1/videos", tags=["videos"])


def _json(content: bytes | str) -> Response:
    return Response(content, media_type="application/json")


@router.get("/", response_model=OffsetPaginatedResults[VideoDTO])
async def list_video_dtos(
    connection: Read, wanted: Wanted, offset: Offset, video_origin: Origin = None, limit: Limit = 10
) -> Response:
    """List videos, a page at a time."""
    wanted = wanted.model_copy(update={"origin": video_origin})
    return _json(await store.page_json(connection, wanted, offset, limit, VIDEOS))


@router.get("/names", response_model=VideoNamesResult)
async def get_video_names(
    request: Request, needs: Needs, connection: Read, wanted: Wanted, video_origin: Origin = None
) -> Response:
    """List the names of all videos, in the order of the list."""
    wanted = wanted.model_copy(update={"origin": video_origin})
    names = await store.names_json(connection, wanted, VIDEOS, "video_names")
    return media.names(request, names, needs.settings.http_compression_level)


@router.get("/ids", response_model=VideoIdsResult)
async def get_video_ids(request: Request, needs: Needs, connection: Read, wanted: Wanted) -> Response:
    """List the names of all videos, as 6.8.1 asks for them."""
    names = await store.names_json(connection, wanted, VIDEOS, "video_ids")
    return media.names(request, names, needs.settings.http_compression_level)
