"""Routes for the files that joined workers transfer: images of the items that they run, and models.

They need a worker's token and are not part of the published API. Names are in the query, because a path would be normalized.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import FileResponse, Response

from invokeclone.images import responses
from invokeclone.images.errors import ImageNotFound
from invokeclone.images.schemas import ImageDTO
from invokeclone.kit.requests import Needs, service
from invokeclone.models.records.served_files import ModelListing, ServedModels
from invokeclone.users.joined import require_joined_worker
from invokeclone.worker.backend.dispatch import Dispatcher
from invokeclone.worker.backend.http import WORKER_ID
from invokeclone.worker.backend.model_cache import MODEL_FILE, MODEL_FILES
from invokeclone.worker.backend.operations import Holder
from invokeclone.worker.backend.transfers import IMAGES

router = APIRouter(include_in_schema=False, dependencies=[Depends(require_joined_worker)])

ModelSource = Annotated[ServedModels, Depends(service(ServedModels))]
WorkerId = Annotated[str, Header(alias=WORKER_ID, max_length=200)]
Fence = Annotated[int, Query(ge=0)]
BINARY = "application/octet-stream"


class ModelResponse(FileResponse):
    """A model's file, sent in chunks that are larger than those of other files."""

    chunk_size = 1024 * 1024


@router.get(IMAGES)
async def read_image(
    needs: Needs, request: Request, worker_id: WorkerId, item_id: int, name: str, fence: Fence, thumbnail: bool = False
) -> Response:
    """Return the file of an image that the user of a running item may read."""
    stored = await Dispatcher(needs).image_file(name, Holder(worker_id, item_id, fence), thumbnail=thumbnail)
    response = await responses.file(request, stored, BINARY, {})
    if response is None:
        raise ImageNotFound(name)
    return response


@router.post(IMAGES)
async def store_image(needs: Needs, request: Request, worker_id: WorkerId, item_id: int, fence: Fence) -> ImageDTO:
    """Store an image that a node of a running item made (see `transfers.py`)."""
    return await Dispatcher(needs).receive_image(await request.body(), Holder(worker_id, item_id, fence))


@router.get(MODEL_FILES)
async def list_model_files(models: ModelSource, key: str) -> ModelListing:
    """Return the files of a model with sizes and hashes."""
    return await models.listing(key)


@router.get(MODEL_FILE)
async def read_model_file(models: ModelSource, key: str, path: str, version: str | None = None) -> FileResponse:
    """Return a file of a model, or a range of it."""
    return ModelResponse(await models.path(key, path, version), media_type=BINARY)
