"""Image routes."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Cookie, File, Form, Path, Query, Request, Response, UploadFile

from invokeclone.graph.vocabulary.fields import MetadataField
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images import access, responses, service, store
from invokeclone.images.errors import ImageNotFound, NotSupported
from invokeclone.images.lists.parameters import Limit, ListFilter, Offset, Origin
from invokeclone.images.schemas import (
    BulkChange,
    DeleteImagesResult,
    ImageDTO,
    ImageNames,
    ImageNamesResult,
    ImageRecordChanges,
    ImageUploadEntry,
    ImageUrlsDTO,
    StarredImagesResult,
    UnstarredImagesResult,
    WorkflowAndGraphResponse,
    image_url,
    thumbnail_url,
)
from invokeclone.kit.paging import OffsetPaginatedResults
from invokeclone.kit.requests import Needs, Reads, Write
from invokeclone.kit.resources import Resources
from invokeclone.users import rights
from invokeclone.users.current import Admin, CurrentUser, MediaUser, User

router = APIRouter(prefix="/api/v1/images", tags=["images"])

ImageName = Annotated[str, Path(description="The name of the image.")]
ImageNamesBody = Annotated[ImageNames, Body(embed=True, description="The names of the images.")]
MediaCookie = Annotated[str | None, Cookie(description="The browser's token for image files.")]

PNG: dict[int | str, dict[str, Any]] = {
    200: {"description": "The image", "content": {"image/png": {}}},
    404: {"description": "No image has this name"},
}
WEBP: dict[int | str, dict[str, Any]] = {
    200: {"description": "The thumbnail", "content": {"image/webp": {}}},
    404: {"description": "No image has this name"},
}


def _json(content: bytes | str) -> Response:
    return Response(content, media_type="application/json")


def _delete_result(change: BulkChange) -> DeleteImagesResult:
    return DeleteImagesResult(affected_boards=change.boards, deleted_images=change.names, failed_images=change.refused)


@router.post("/upload", status_code=201, responses={415: {"description": "Not a readable image"}})
async def upload_image(
    needs: Needs,
    user: CurrentUser,
    response: Response,
    file: Annotated[UploadFile, File(description="The image file.")],
    image_category: Annotated[ImageCategory, Query(description="The category of the image.")],
    is_intermediate: Annotated[bool, Query(description="Whether it is an intermediate.")],
    board_id: Annotated[str | None, Query(description="The board to add it to.")] = None,
    session_id: Annotated[str | None, Query(description="The session it belongs to.")] = None,
    crop_visible: Annotated[bool | None, Query(description="Whether to crop the image to its visible part.")] = False,
    resize_to: Annotated[str | None, Form(description='The size to resize it to: {"width": …, "height": …}.')] = None,
    metadata: Annotated[
        str | None, Form(description="Metadata as a JSON object; replaces the embedded metadata.")
    ] = None,
) -> ImageDTO:
    """Upload an image."""
    image = await service.upload(
        needs,
        await file.read(),
        content_type=file.content_type,
        category=image_category,
        is_intermediate=is_intermediate,
        board_id=board_id,
        session_id=session_id,
        crop_visible=bool(crop_visible),
        resize_to=resize_to,
        metadata=metadata,
        user=user,
    )
    response.headers["Location"] = image.image_url
    return image


@router.post("/")
async def create_image_upload_entry(
    _user: CurrentUser,
    width: Annotated[int, Body(description="Width in pixels.")],  # noqa: ARG001
    height: Annotated[int, Body(description="Height in pixels.")],  # noqa: ARG001
    board_id: Annotated[str | None, Body(description="The board to add it to.")] = None,  # noqa: ARG001
) -> ImageUploadEntry:
    """Request a presigned upload URL; always 501, upload images to `/upload`."""
    raise NotSupported("presigned uploads are not supported; upload the image to api/v1/images/upload")


@router.get("/", response_model=OffsetPaginatedResults[ImageDTO])
async def list_image_dtos(
    source: Reads, image_filter: ListFilter, offset: Offset, image_origin: Origin = None, limit: Limit = 10
) -> Response:
    """List a page of images."""
    image_filter = image_filter.model_copy(update={"origin": image_origin})
    return _json(await store.page_json(source, image_filter, offset, limit))


@router.get("/names", response_model=ImageNamesResult)
async def get_image_names(
    request: Request, needs: Needs, image_filter: ListFilter, image_origin: Origin = None
) -> Response:
    """List the names of all images in list order."""
    pieces = await store.names_json(needs.database, image_filter.model_copy(update={"origin": image_origin}))
    return await responses.json_pieces(request, pieces, needs.settings.http_compression_level)


@router.post("/images_by_names", response_model=list[ImageDTO])
async def get_images_by_names(source: Reads, user: CurrentUser, image_names: ImageNamesBody) -> Response:
    """Get several images in the order of their names; missing images and those of other users are left out."""
    refused = set((await access.readable(source, user, access.IMAGES, image_names)).refused)
    names = [name for name in image_names if name not in refused] if refused else image_names
    return _json(await store.by_names_json(source, names))


@router.get("/intermediates")
async def get_intermediates_count(source: Reads, user: CurrentUser) -> int:
    """Count the intermediates: of all users for an admin, else the user's own."""
    return await store.count_intermediates(source, rights.scope(user))


@router.delete("/intermediates")
async def clear_intermediates(needs: Needs, user: Admin) -> int:  # noqa: ARG001
    """Delete all intermediates; returns how many there were."""
    return len(await service.delete_intermediates(needs))


@router.delete("/uncategorized")
async def delete_uncategorized_images(needs: Needs, user: CurrentUser) -> DeleteImagesResult:
    """Delete all images that are on no board: of all users for an admin, else the user's own."""
    return _delete_result(BulkChange(await service.delete_uncategorized(needs, user)))


@router.post("/delete")
async def delete_images_from_list(needs: Needs, user: CurrentUser, image_names: ImageNamesBody) -> DeleteImagesResult:
    """Delete several images."""
    return _delete_result(await service.delete_many(needs, image_names, user))


@router.post("/star")
async def star_images_in_list(connection: Write, user: CurrentUser, image_names: ImageNamesBody) -> StarredImagesResult:
    """Star several images."""
    change = await service.set_starred(connection, image_names, user, starred=True)
    return StarredImagesResult(affected_boards=change.boards, starred_images=change.names, failed_images=change.refused)


@router.post("/unstar")
async def unstar_images_in_list(
    connection: Write, user: CurrentUser, image_names: ImageNamesBody
) -> UnstarredImagesResult:
    """Unstar several images."""
    change = await service.set_starred(connection, image_names, user, starred=False)
    return UnstarredImagesResult(
        affected_boards=change.boards, unstarred_images=change.names, failed_images=change.refused
    )


@router.get("/i/{image_name}", response_model=ImageDTO)
async def get_image_dto(source: Reads, user: CurrentUser, image_name: ImageName) -> Response:
    """Get an image's record."""
    await access.require_readable(source, user, access.IMAGES, image_name)
    return _json(await store.get_json(source, access.IMAGES, image_name))


@router.patch("/i/{image_name}")
async def update_image(
    connection: Write, user: CurrentUser, image_name: ImageName, changes: ImageRecordChanges
) -> ImageDTO:
    """Change an image's category, session, star, or whether it is an intermediate."""
    await access.require_changeable(connection, user, access.IMAGES, image_name)
    return await store.update_image(connection, image_name, changes)


@router.delete("/i/{image_name}")
async def delete_image(needs: Needs, user: CurrentUser, image_name: ImageName) -> DeleteImagesResult:
    """Delete an image."""
    return _delete_result(await service.delete(needs, image_name, user))


@router.get("/i/{image_name}/metadata", response_model=MetadataField | None)
async def get_image_metadata(source: Reads, user: CurrentUser, image_name: ImageName) -> Response:
    """Get an image's metadata."""
    await access.require_readable(source, user, access.IMAGES, image_name)
    return _json(await store.metadata_json(source, image_name) or "null")


@router.get("/i/{image_name}/workflow")
async def get_image_workflow(needs: Needs, user: CurrentUser, image_name: ImageName) -> WorkflowAndGraphResponse:
    """Get the workflow and the graph embedded in an image, as JSON text."""
    return await service.texts(needs, image_name, user)


@router.get("/i/{image_name}/urls")
async def get_image_urls(source: Reads, user: CurrentUser, image_name: ImageName) -> ImageUrlsDTO:
    """Get the URLs of an image and its thumbnail; the image need not exist."""
    await access.require_readable(source, user, access.IMAGES, image_name)
    return ImageUrlsDTO(image_name=image_name, image_url=image_url(image_name), thumbnail_url=thumbnail_url(image_name))


@router.get("/i/{image_name}/full", response_class=Response, responses=PNG)
async def get_image_full(
    request: Request, needs: Needs, user: MediaUser, image_name: ImageName, invokeai_media_token: MediaCookie = None
) -> Response:
    """Get the image file."""
    del invokeai_media_token
    return await _full(request, needs, user, image_name)


@router.head("/i/{image_name}/full", response_class=Response, responses=PNG)
async def get_image_full_head(
    request: Request, needs: Needs, user: MediaUser, image_name: ImageName, invokeai_media_token: MediaCookie = None
) -> Response:
    """Get the headers of the image file."""
    del invokeai_media_token
    return await _full(request, needs, user, image_name)


async def _full(request: Request, needs: Resources, user: User, image_name: str) -> Response:
    stored = await service.file(needs, image_name, user=user)
    if (redirect := await responses.redirect_to_storage(request, stored, needs.settings)) is not None:
        return redirect
    headers = {
        "Content-Disposition": f'inline; filename="{stored.name}"',
        "Cache-Control": responses.cache_control(needs.settings),
    }
    answer = await responses.file(request, stored, "image/png", headers)
    if answer is None:
        raise ImageNotFound(image_name)
    return answer


@router.get("/i/{image_name}/thumbnail", response_class=Response, responses=WEBP)
async def get_image_thumbnail(
    request: Request, needs: Needs, user: MediaUser, image_name: ImageName, invokeai_media_token: MediaCookie = None
) -> Response:
    """Get the thumbnail of an image."""
    del invokeai_media_token
    stored = await service.file(needs, image_name, thumbnail=True, user=user)
    headers = {"Cache-Control": responses.cache_control(needs.settings)}
    answer = await responses.file(request, stored, "image/webp", headers)
    if answer is None:
        webp = await service.regenerate_thumbnail(needs, image_name)
        answer = Response(webp, media_type="image/webp", headers=headers)
    return answer
