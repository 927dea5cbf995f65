"""Routes under /api/v1/download_queue, as of InvokeAI 6.8.1."""

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
    """List the downloads, including those of model installs."""
    return downloads.jobs()


@router.patch("/", status_code=204, responses=_NULL)
async def prune_downloads(downloads: NeedsDownloads) -> Response:
    """Remove the downloads that have ended from the list."""
    downloads.prune()
    return Response(status_code=204)


@router.post("/i/")
async def download(
    downloads: NeedsDownloads,
    source: Annotated[AnyHttpUrl, Body(description="URL of the file")],
    dest: Annotated[str, Body(description="Destination file or folder, relative to the download cache")],
    priority: Annotated[int, Body(description="Priority; lower values are downloaded first")] = 10,
    access_token: Annotated[str | None, Body(description="Bearer token for the URL")] = None,
) -> DownloadJob:
    """Start a download. The destination must be in the download cache, or in the models folder outside of any model."""
    path, file = await downloads.resolve_destination(dest)
    return downloads.add(DownloadRequest(source=source, dest=path, file=file, priority=priority, token=access_token))


@router.get("/i/{id}")
async def get_download_job(downloads: NeedsDownloads, id: int) -> DownloadJob:  # noqa: A002  (name in the API)
    """Get a download."""
    return downloads.get(id)


@router.delete("/i/{id}", status_code=204, responses=_NULL)
async def cancel_download_job(downloads: NeedsDownloads, id: int) -> Response:  # noqa: A002  (name in the API)
    """Cancel a download; has no effect on one that has ended."""
    downloads.cancel(id)
    return Response(status_code=204)


@router.delete("/i", status_code=204, responses=_NULL)
async def cancel_all_download_jobs(downloads: NeedsDownloads) -> Response:
    """Cancel every download that hasn't ended."""
    downloads.cancel_all()
    return Response(status_code=204)
