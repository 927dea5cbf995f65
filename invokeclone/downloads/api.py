"""The routes under /api/v1/download_queue, as of 6.8.1."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Response
from pydantic import AnyHttpUrl

from invokeclone.downloads.queue import DownloadQueue, DownloadRequest
from invokeclone.downloads.schemas import DownloadJob
from invokeclone.kit.requests import service
from invokeclone.users.current import admin

NeedsDownloads = Annotated[DownloadQueue, Depends(service(DownloadQueue))]

router = APIRouter(prefix="/api/v1/download_queue", tags=["download_queue"], dependencies=[Depends(admin)])

_NULL: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"schema": {}}}}}


@router.get("/")
async def list_downloads(downloads: NeedsDownloads) -> list[DownloadJob]:
    """List downloads, also those of installations."""
    return downloads.jobs()


@router.patch("/", status_code=204, responses=_NULL)
async def prune_downloads(downloads: NeedsDownloads) -> Response:
    """Forget the downloads that have ended."""
    downloads.prune()
    return Response(status_code=204)


@router.post("/i/")
async def download(
    downloads: NeedsDownloads,
    source: Annotated[AnyHttpUrl, Body(description="Web address of the file")],
    dest: Annotated[str, Body(description="File or folder for it, relative to the download cache")],
    priority: Annotated[int, Body(description="Lower ones come first")] = 10,
    access_token: Annotated[str | None, Body(description="Bearer token for the address")] = None,
) -> DownloadJob:
    """Begin a download. It may only go into the download cache, or into the models folder where no model lies."""
    path, file = await downloads.resolve_destination(dest)
    return downloads.add(DownloadRequest(source=source, dest=path, file=file, priority=priority, token=access_token))


@router.get("/i/{id}")
async def get_download_job(downloads: NeedsDownloads, id: int) -> DownloadJob:  # noqa: A002  (the wire's word)
    """Return a download."""
    return downloads.get(id)


@router.delete("/i/{id}", status_code=204, responses=_NULL)
async def cancel_download_job(downloads: NeedsDownloads, id: int) -> Response:  # noqa: A002  (the wire's word)
    """Cancel a download; one that has ended stays as it is."""
    downloads.cancel(id)
    return Response(status_code=204)


@router.delete("/i", status_code=204, responses=_NULL)
async def cancel_all_download_jobs(downloads: NeedsDownloads) -> Response:
    """Cancel every download that hasn't ended."""
    downloads.cancel_all()
    return Response(status_code=204)
