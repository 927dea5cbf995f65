"""The routes of the workflow library; what is asked and answered, no SQL, no files."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, File, Path, Query, Response, UploadFile
from starlette.responses import FileResponse

from invokeclone.images import responses
from invokeclone.kit.paging import PaginatedResults, SQLiteDirection
from invokeclone.kit.process.offload import off_loop
from invokeclone.kit.requests import LATER, Needs, Read, validating
from invokeclone.users import rights
from invokeclone.users.current import CurrentUser, MediaUser
from invokeclone.workflows import service, store
from invokeclone.workflows.schemas import (
    Workflow,
    WorkflowCategory,
    WorkflowRecordDTO,
    WorkflowRecordListItemWithThumbnailDTO,
    WorkflowRecordOrderBy,
    WorkflowRecordWithThumbnailDTO,
    WorkflowWithoutID,
)
from invokeclone.workflows.store import Filter

router = APIRouter(prefix="/api/v1/workflows", tags=["workflows"])

WorkflowId = Annotated[str, Path(description="The id of the workflow.")]
Categories = Annotated[list[WorkflowCategory] | None, Query(description="Only workflows of these categories.")]
Tags = Annotated[list[str] | None, Query(description="Only workflows one of whose tags holds one of these.")]
HasBeenOpened = Annotated[bool | None, Query(description="Only workflows that were opened, or never were.")]
IsPublic = Annotated[bool | None, Query(description="Only workflows that are shared with everybody, or are not.")]

THUMBNAIL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture"},
    400: {"description": "Not an id"},
    404: {"description": "No such workflow, or it has no picture"},
}


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _texts(values: list[WorkflowCategory] | list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(str(value) for value in values)


@router.get("/", response_model=PaginatedResults[WorkflowRecordListItemWithThumbnailDTO])
async def list_workflows(
    needs: Needs,
    user: CurrentUser,
    page: Annotated[int, Query(description="The page, from 0.")] = 0,
    per_page: Annotated[int | None, Query(description="How many to list on a page; all when absent or 0.")] = None,
    order_by: Annotated[WorkflowRecordOrderBy, Query(description="What to sort by.")] = WorkflowRecordOrderBy.Name,
    direction: Annotated[SQLiteDirection, Query(description="Which end comes first.")] = SQLiteDirection.Ascending,
    categories: Categories = None,
    tags: Tags = None,
    query: Annotated[str | None, Query(description="Only workflows whose name, description or tags hold this.")] = None,
    has_been_opened: HasBeenOpened = None,
    is_public: IsPublic = None,
    callable: Annotated[  # noqa: A002
        bool | None, Query(description="Only workflows that a graph may call, or may not.")
    ] = None,
    is_published: Annotated[bool | None, Query(description="Of 6.8.1; no workflow is.")] = None,
) -> Response:
    """List workflows; somebody who is no admin sees their own and the default ones, and with `is_public` all shared ones."""
    criteria = Filter(
        viewer=rights.scope(user),
        categories=() if is_published else _texts(categories),  # none is, so none is listed
        tags=_texts(tags) or None,
        query=query or None,
        has_been_opened=has_been_opened,
        is_public=is_public,
        is_callable=callable,
    )
    content = await service.listing(needs, criteria, order_by, direction, page=page, per_page=per_page or 0)
    return _json(content)


@router.post("/", response_model=WorkflowRecordDTO)
async def create_workflow(
    needs: Needs,
    user: CurrentUser,
    workflow: Annotated[WorkflowWithoutID, LATER, Body(embed=True, description="The workflow.")],
) -> Response:
    """Add a workflow to the library."""
    with validating("workflow"):
        checked = await off_loop(lambda: WorkflowWithoutID.model_validate(workflow))
    return _json(await service.create(needs, checked, user))


@router.get("/tags")
async def get_all_tags(
    connection: Read, user: CurrentUser, categories: Categories = None, is_public: IsPublic = None
) -> list[str]:
    """List the tags of all workflows."""
    criteria = Filter(viewer=rights.scope(user), categories=_texts(categories), is_public=is_public)
    return await store.tags(connection, criteria)


@router.get("/counts_by_tag")
async def get_counts_by_tag(
    connection: Read,
    user: CurrentUser,
    tags: Annotated[list[str], Query(description="The tags to count.")],
    categories: Categories = None,
    has_been_opened: HasBeenOpened = None,
    is_public: IsPublic = None,
) -> dict[str, int]:
    """Count the workflows that have each of some tags."""
    criteria = Filter(
        viewer=rights.scope(user),
        categories=_texts(categories),
        has_been_opened=has_been_opened,
        is_public=is_public,
    )
    return await store.count_by_tag(connection, criteria, tags)


@router.get("/counts_by_category")
async def counts_by_category(
    connection: Read,
    user: CurrentUser,
    categories: Annotated[list[WorkflowCategory], Query(description="The categories to count.")],
    has_been_opened: HasBeenOpened = None,
    is_public: IsPublic = None,
) -> dict[str, int]:
    """Count the workflows of some categories."""
    criteria = Filter(
        viewer=rights.scope(user),
        categories=_texts(categories),
        has_been_opened=has_been_opened,
        is_public=is_public,
    )
    counts = await store.count_by_category(connection, criteria)
    return {category.value: counts.get(category.value, 0) for category in categories}


@router.get("/i/{workflow_id}", response_model=WorkflowRecordWithThumbnailDTO)
async def get_workflow(needs: Needs, user: CurrentUser, workflow_id: WorkflowId) -> Response:
    """Get a workflow."""
    return _json(await service.get(needs, workflow_id, user))


@router.patch("/i/{workflow_id}", response_model=WorkflowRecordDTO)  # noqa: FAST003  (clients know it so)
async def update_workflow(
    needs: Needs,
    user: CurrentUser,
    workflow: Annotated[Workflow, LATER, Body(embed=True, description="The workflow.")],
) -> Response:
    """Replace the workflow that has the id of the one sent; the id in the address says nothing."""
    with validating("workflow"):
        checked = await off_loop(lambda: Workflow.model_validate(workflow))
    return _json(await service.update(needs, checked, user))


@router.delete("/i/{workflow_id}")
async def delete_workflow(needs: Needs, user: CurrentUser, workflow_id: WorkflowId) -> Any:
    """Delete a workflow and its picture."""
    await service.delete(needs, workflow_id, user)


@router.patch("/i/{workflow_id}/is_public", response_model=WorkflowRecordDTO)
async def update_workflow_is_public(
    needs: Needs,
    user: CurrentUser,
    workflow_id: WorkflowId,
    is_public: Annotated[bool, Body(embed=True, description="Whether everybody may read the workflow.")],
) -> Response:
    """Share a workflow with everybody, or no longer."""
    return _json(await service.set_public(needs, workflow_id, user, is_public=is_public))


@router.put("/i/{workflow_id}/opened_at")
async def update_opened_at(needs: Needs, user: CurrentUser, workflow_id: WorkflowId) -> Any:
    """Note that a workflow was opened now."""
    await service.open_workflow(needs, workflow_id, user)


@router.put("/i/{workflow_id}/thumbnail", response_model=WorkflowRecordDTO)
async def set_workflow_thumbnail(
    needs: Needs,
    user: CurrentUser,
    workflow_id: WorkflowId,
    image: Annotated[UploadFile, File(description="The picture.")],
) -> Response:
    """Give a workflow a picture; the answer is null."""
    await service.set_thumbnail(needs, workflow_id, await image.read(), image.content_type, user)
    return _json(b"null")


@router.delete("/i/{workflow_id}/thumbnail", response_model=WorkflowRecordDTO)
async def delete_workflow_thumbnail(needs: Needs, user: CurrentUser, workflow_id: WorkflowId) -> Response:
    """Take away a workflow's picture; the answer is null."""
    await service.delete_thumbnail(needs, workflow_id, user)
    return _json(b"null")


@router.get("/i/{workflow_id}/thumbnail", responses=THUMBNAIL_RESPONSES)
async def get_workflow_thumbnail(needs: Needs, user: MediaUser, workflow_id: WorkflowId) -> FileResponse:
    """Get a workflow's picture."""
    return responses.thumbnail(await service.thumbnail_of(needs, workflow_id, user), needs.settings)
