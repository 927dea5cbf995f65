"""Video routes. The video ids of web UI 6.8.1 are names."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Body, Cookie, Path, Query, Request, Response
from starlette.requests import ClientDisconnect

from invokeclone.graph.vocabulary.fields import MetadataField
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images import access, responses, service, store
from invokeclone.images.errors import UploadInterrupted, VideoNotFound
from invokeclone.images.lists.parameters import Limit, ListFilter, Offset, Origin
from invokeclone.images.media_kinds import VIDEOS
from invokeclone.images.schemas import BulkChange, WorkflowAndGraphResponse
from invokeclone.images.videos import service as videos_service
from invokeclone.images.videos.schemas import (
    DeleteVideosResult,
    StarredVideosResult,
    UnstarredVideosResult,
    VideoDTO,
    VideoIdsResult,
    VideoNames,
    VideoNamesBatch,
    VideoNamesResult,
    VideoRecordChanges,
    VideoUrlsDTO,
)
from invokeclone.kit.paging import OffsetPaginatedResults
from invokeclone.kit.requests import Needs, Reads, Write
from invokeclone.kit.resources import Resources
from invokeclone.users.current import CurrentUser, MediaUser, User

router = APIRouter(prefix="/api/v1/videos", tags=["videos"])

VideoName = Annotated[str, Path(description="The name of the video.")]
MediaCookie = Annotated[str | None, Cookie()]

MP4: dict[int | str, dict[str, Any]] = {
    200: {"description": "The video", "content": {"video/mp4": {}}},
    404: {"description": "No video has this name"},
}
PART_OF_MP4: dict[int | str, dict[str, Any]] = {
    **MP4,
    206: {"description": "A part of the video", "content": {"video/mp4": {}}},
}
WEBP: dict[int | str, dict[str, Any]] = {
    200: {"description": "The thumbnail", "content": {"image/webp": {}}},
    404: {"description": "No video has this name"},
}


UPLOAD_RESPONSES: dict[int | str, dict[str, Any]] = {415: {"description": "Not a supported video"}}
UPLOAD_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "title": "Body_upload_video",
                    "type": "object",
                    "properties": {
                        "file": {"title": "File", "type": "string", "contentMediaType": "application/octet-stream"},
                        "metadata": {"title": "Metadata", "anyOf": [{"type": "string"}, {"type": "null"}]},
                    },
                    "required": ["file"],
                }
            }
        },
    }
}
"""The upload form, which the route parses as a stream."""


def _json(content: bytes | str) -> Response:
    return Response(content, media_type="application/json")


@router.get("/", response_model=OffsetPaginatedResults[VideoDTO])
async def list_video_dtos(
    source: Reads, image_filter: ListFilter, offset: Offset, video_origin: Origin = None, limit: Limit = 10
) -> Response:
    """List a page of videos."""
    image_filter = image_filter.model_copy(update={"origin": video_origin})
    return _json(await store.page_json(source, image_filter, offset, limit, VIDEOS))


@router.get("/names", response_model=VideoNamesResult)
async def get_video_names(
    request: Request, needs: Needs, image_filter: ListFilter, video_origin: Origin = None
) -> Response:
    """List the names of all videos in list order."""
    image_filter = image_filter.model_copy(update={"origin": video_origin})
    names = await store.names_json(needs.database, image_filter, VIDEOS, "video_names")
    return await responses.json_pieces(request, names, needs.settings.http_compression_level)


@router.get("/ids", response_model=VideoIdsResult)
async def get_video_ids(request: Request, needs: Needs, image_filter: ListFilter) -> Response:
    """List the names of all videos, for web UI 6.8.1."""
    names = await store.names_json(needs.database, image_filter, VIDEOS, "video_ids")
    return await responses.json_pieces(request, names, needs.settings.http_compression_level)


@router.post("/videos_by_ids", response_model=list[VideoDTO])
async def get_videos_by_ids(
    source: Reads, user: CurrentUser, video_ids: Annotated[VideoNames, Body(embed=True, description="The names.")]
) -> Response:
    """Get several videos in the order of their names; missing videos and those of other users are left out.

    Each also has its name as `video_id`, for clients of 6.8.1, which use this route.
    """
    allowed = await access.readable(source, user, VIDEOS, video_ids)
    records = {record["video_name"]: record for record in await store.by_names(source, VIDEOS, allowed.names)}
    refused = set(allowed.refused)
    names = [name for name in video_ids if name in records and name not in refused]
    return _json(orjson.dumps([{"video_id": name, **records[name]} for name in names]))


async def _body(request: Request) -> AsyncIterator[bytes]:
    """Yield the request's body; raises UploadInterrupted when the client disconnects before its end."""
    try:
        async for data in request.stream():
            yield data
    except ClientDisconnect as error:
        raise UploadInterrupted from error


@router.post("/upload", status_code=201, responses=UPLOAD_RESPONSES, openapi_extra=UPLOAD_FORM)
async def upload_video(
    request: Request,
    needs: Needs,
    user: CurrentUser,
    response: Response,
    video_category: Annotated[ImageCategory, Query(description="The category of the video.")],
    is_intermediate: Annotated[bool, Query(description="Whether it is an intermediate.")],
    board_id: Annotated[str | None, Query(description="The board to add it to.")] = None,
    session_id: Annotated[str | None, Query(description="The session it belongs to.")] = None,
) -> VideoDTO:
    """Upload a video: MP4 with H.264, up to the limit video_mib (1 GiB by default)."""
    video = await videos_service.upload(
        needs,
        _body(request),
        request.headers.get("content-type", ""),
        category=video_category,
        is_intermediate=is_intermediate,
        board_id=board_id,
        session_id=session_id,
        user=user,
    )
    response.headers["Location"] = video.video_url
    return video


@router.delete("/uncategorized")
async def delete_uncategorized_videos(needs: Needs, user: CurrentUser) -> DeleteVideosResult:
    """Delete all videos that are on no board: of all users for an admin, else the user's own."""
    change = BulkChange(await service.delete_uncategorized(needs, user, VIDEOS))
    return DeleteVideosResult(affected_boards=change.boards, deleted_videos=change.names, failed_videos=[])


@router.post("/delete")
async def delete_videos_from_list(needs: Needs, user: CurrentUser, batch: VideoNamesBatch) -> DeleteVideosResult:
    """Delete several videos."""
    change = await service.delete_many(needs, batch.video_names, user, VIDEOS)
    failed = videos_service.names_not_changed(batch.video_names, change)
    return DeleteVideosResult(affected_boards=change.boards, deleted_videos=change.names, failed_videos=failed)


@router.post("/star")
async def star_videos_in_list(connection: Write, user: CurrentUser, batch: VideoNamesBatch) -> StarredVideosResult:
    """Star several videos."""
    change = await service.set_starred(connection, batch.video_names, user, starred=True, kind=VIDEOS)
    failed = videos_service.names_not_changed(batch.video_names, change)
    return StarredVideosResult(affected_boards=change.boards, starred_videos=change.names, failed_videos=failed)


@router.post("/unstar")
async def unstar_videos_in_list(connection: Write, user: CurrentUser, batch: VideoNamesBatch) -> UnstarredVideosResult:
    """Unstar several videos."""
    change = await service.set_starred(connection, batch.video_names, user, starred=False, kind=VIDEOS)
    failed = videos_service.names_not_changed(batch.video_names, change)
    return UnstarredVideosResult(affected_boards=change.boards, unstarred_videos=change.names, failed_videos=failed)


@router.get("/i/{video_name}")
async def get_video_dto(source: Reads, user: CurrentUser, video_name: VideoName) -> VideoDTO:
    """Get a video's record."""
    return await videos_service.get(source, user, video_name)


@router.patch("/i/{video_name}")
async def update_video(
    connection: Write, user: CurrentUser, video_name: VideoName, changes: VideoRecordChanges
) -> VideoDTO:
    """Change a video's category, session, star, or whether it is an intermediate."""
    await access.require_changeable(connection, user, VIDEOS, video_name)
    return VideoDTO.model_validate(await store.change(connection, VIDEOS, video_name, changes))


@router.delete("/i/{video_name}")
async def delete_video(needs: Needs, user: CurrentUser, video_name: VideoName) -> DeleteVideosResult:
    """Delete a video."""
    change = await service.delete(needs, video_name, user, VIDEOS)
    return DeleteVideosResult(affected_boards=change.boards, deleted_videos=change.names, failed_videos=[])


@router.get("/i/{video_name}/metadata", response_model=MetadataField | None)
async def get_video_metadata(source: Reads, user: CurrentUser, video_name: VideoName) -> Response:
    """Get a video's metadata."""
    await access.require_readable(source, user, VIDEOS, video_name)
    return _json(await store.metadata_json(source, video_name, VIDEOS) or "null")


@router.get("/i/{video_name}/workflow")
async def get_video_workflow(needs: Needs, user: CurrentUser, video_name: VideoName) -> WorkflowAndGraphResponse:
    """Get the workflow and the graph stored with a video, as JSON text."""
    return await videos_service.texts(needs, video_name, user)


@router.get("/i/{video_name}/urls")
async def get_video_urls(source: Reads, user: CurrentUser, video_name: VideoName) -> VideoUrlsDTO:
    """Get the URLs of a video and its thumbnail; the video need not exist."""
    await access.require_readable(source, user, VIDEOS, video_name)
    return VideoUrlsDTO(
        video_name=video_name, video_url=VIDEOS.url(video_name), thumbnail_url=VIDEOS.url(video_name, "thumbnail")
    )


@router.get("/i/{video_name}/full", response_class=Response, responses=PART_OF_MP4)
async def get_video_full(
    request: Request, needs: Needs, user: MediaUser, video_name: VideoName, invokeai_media_token: MediaCookie = None
) -> Response:
    """Get the video file, or the requested range of it, up to 1 MiB."""
    del invokeai_media_token
    return await _full(request, needs, user, video_name)


@router.head("/i/{video_name}/full", response_class=Response, responses=MP4)
async def get_video_full_head(
    request: Request, needs: Needs, user: MediaUser, video_name: VideoName, invokeai_media_token: MediaCookie = None
) -> Response:
    """Get the headers of the video file."""
    del invokeai_media_token
    return await _full(request, needs, user, video_name)


async def _full(request: Request, needs: Resources, user: User, video_name: str) -> Response:
    stored = await service.file(needs, video_name, user=user, kind=VIDEOS)
    if (redirect := await responses.redirect_to_storage(request, stored, needs.settings)) is not None:
        return redirect
    headers = {
        "Content-Disposition": f'inline; filename="{stored.name}"',
        "Cache-Control": responses.cache_control(needs.settings),
    }
    answer = await responses.part(request, stored, "video/mp4", headers)
    if answer is None:
        raise VideoNotFound(video_name)
    return answer


@router.get("/i/{video_name}/thumbnail", response_class=Response, responses=WEBP)
async def get_video_thumbnail(
    request: Request, needs: Needs, user: MediaUser, video_name: VideoName, invokeai_media_token: MediaCookie = None
) -> Response:
    """Get the thumbnail of a video, made from its first frame."""
    del invokeai_media_token
    stored = await service.file(needs, video_name, thumbnail=True, user=user, kind=VIDEOS)
    headers = {"Cache-Control": responses.cache_control(needs.settings)}
    answer = await responses.file(request, stored, "image/webp", headers)
    if answer is None:
        webp = await videos_service.regenerate_thumbnail(needs, video_name)
        answer = Response(webp, media_type="image/webp", headers=headers)
    return answer
