"""Routes of zip files of images: requesting and downloading them."""

import functools
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from anyio import CancelScope
from fastapi import APIRouter, Body, Depends, Request, Response
from fastapi import Path as InPath
from starlette.types import Receive, Scope, Send

from invokeclone.images import responses
from invokeclone.images.archives.service import ImageDownloads
from invokeclone.images.errors import DownloadNotFound
from invokeclone.images.schemas import ImageNames, ImagesDownloaded
from invokeclone.kit.requests import Needs, service
from invokeclone.users.current import CurrentUser

router = APIRouter(prefix="/api/v1/images", tags=["images"])


Zips = Annotated[ImageDownloads, Depends(service(ImageDownloads))]

ZIP: dict[int | str, dict[str, Any]] = {
    200: {"description": "The zip file", "content": {"application/zip": {}}},
    404: {"description": "The zip file does not exist or was downloaded already"},
}


class _OneTimeResponse(Response):
    """Sends a file as a whole, whatever range is requested, and removes it then, even if the client disconnects."""

    def __init__(self, response: Response, remove: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._response = response
        self._remove = remove

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        whole = [(name, value) for name, value in scope["headers"] if name != b"range"]
        try:
            await self._response({**scope, "headers": whole}, receive, send)
        finally:
            with CancelScope(shield=True):
                await self._remove()


@router.post("/download", status_code=202)
async def download_images_from_list(
    downloads: Zips,
    user: CurrentUser,
    image_names: Annotated[ImageNames | None, Body(description="The names of the images.")] = None,
    board_id: Annotated[
        str | None, Body(description='A board, or "none" for images on no board; replaces the names.')
    ] = None,
) -> ImagesDownloaded:
    """Create a zip file of images in the background; an event reports when it is ready."""
    return ImagesDownloaded(bulk_download_item_name=await downloads.request(user, image_names, board_id))


@router.get("/download/{bulk_download_item_name}", response_class=Response, responses=ZIP)
async def get_bulk_download_item(
    request: Request,
    downloads: Zips,
    needs: Needs,
    user: CurrentUser,
    bulk_download_item_name: Annotated[str, InPath(description="The name of the zip file.")],
) -> Response:
    """Download a zip file; it is removed afterwards."""
    async with downloads.claim(user, bulk_download_item_name) as file:
        headers = {
            "Cache-Control": responses.cache_control(needs.settings),
            "Content-Disposition": responses.content_disposition(file.name),
        }
        remove = functools.partial(downloads.remove, file)
        response = await responses.file(request, file, "application/zip", headers)
        if response is None:  # downloaded in the moment before the claim
            await remove()
            raise DownloadNotFound(bulk_download_item_name)
        return _OneTimeResponse(response, remove)
