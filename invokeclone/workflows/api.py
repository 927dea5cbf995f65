"""Routes of the workflow library."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, File, Path, Query, Response, UploadFile

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

WorkflowId = Annotated[str, Path(description="Id of the workflow.")]
Categories = Annotated[list[WorkflowCategory] | None, Query(description="List only workflows of these categories.")]
Tags = Annotated[
    list[str] | None, Query(description="List only workflows with a tag that contains one of these texts.")
]
HasBeenOpened = Annotated[bool | None, Query(description="List only workflows that have, or have not, been opened.")]
IsPublic = Annotated[bool | None, Query(description="List only workflows that are, or are not, shared with all users.")]

THUMBNAIL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The thumbnail"},
    400: {"description": "Invalid id"},
    404: {"description": "The workflow does not exist or has no thumbnail"},
}


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")


def _texts(values: list[WorkflowCategory] | list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(str(value) for value in values)


@router.get("/", response_model=PaginatedResults[WorkflowRecordListItemWithThumbnailDTO])
async def list_workflows(
    needs: Needs,
    user: CurrentUser,
    page: Annotated[int, Query(description="Page number, from 0.")] = 0,
    per_page: Annotated[int | None, Query(description="Workflows per page; all if omitted or 0.")] = None,
    order_by: Annotated[WorkflowRecordOrderBy, Query(description="Sort key.")] = WorkflowRecordOrderBy.Name,
    direction: Annotated[SQLiteDirection, Query(description="Sort direction.")] = SQLiteDirection.Ascending,
    categories: Categories = None,
    tags: Tags = None,
    query: Annotated[
        str | None, Query(description="List only workflows with this text in their name, description or tags.")
    ] = None,
    has_been_opened: HasBeenOpened = None,
    is_public: IsPublic = None,
    callable: Annotated[  # noqa: A002
        bool | None, Query(description="List only workflows that graphs can, or cannot, call.")
    ] = None,
    is_published: Annotated[bool | None, Query(description="Of InvokeAI 6.8.1; no workflow is published.")] = None,
) -> Response:
    """List workflows. Non-admins see their own and the default workflows, and with `is_public` all shared ones."""
    criteria = Filter(
        viewer=rights.scope(user),
        categories=() if is_published else _texts(categories),  # no workflow is published
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
    """List the tags of workflows."""
    criteria = Filter(viewer=rights.scope(user), categories=_texts(categories), is_public=is_public)
    return await store.tags(connection, criteria)


@router.get("/counts_by_tag")
async def get_counts_by_tag(
    connection: Read,
    user: CurrentUser,
    tags: Annotated[list[str], Query(description="Tags to count.")],
    categories: Categories = None,
    has_been_opened: HasBeenOpened = None,
    is_public: IsPublic = None,
) -> dict[str, int]:
    """Count the workflows by tag."""
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
    categories: Annotated[list[WorkflowCategory], Query(description="Categories to count.")],
    has_been_opened: HasBeenOpened = None,
    is_public: IsPublic = None,
) -> dict[str, int]:
    """Count the workflows by category."""
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


@router.patch("/i/{workflow_id}", response_model=WorkflowRecordDTO)  # noqa: FAST003  (InvokeAI's path)
async def update_workflow(
    needs: Needs,
    user: CurrentUser,
    workflow: Annotated[Workflow, LATER, Body(embed=True, description="The workflow.")],
) -> Response:
    """Replace the workflow with the id in the body; the id in the path is ignored."""
    with validating("workflow"):
        checked = await off_loop(lambda: Workflow.model_validate(workflow))
    return _json(await service.update(needs, checked, user))


@router.delete("/i/{workflow_id}")
async def delete_workflow(needs: Needs, user: CurrentUser, workflow_id: WorkflowId) -> Any:
    """Delete a workflow and its thumbnail."""
    await service.delete(needs, workflow_id, user)


@router.patch("/i/{workflow_id}/is_public", response_model=WorkflowRecordDTO)
async def update_workflow_is_public(
    needs: Needs,
    user: CurrentUser,
    workflow_id: WorkflowId,
    is_public: Annotated[bool, Body(embed=True, description="Whether all users may read the workflow.")],
) -> Response:
    """Share a workflow with all users, or stop sharing it."""
    return _json(await service.set_public(needs, workflow_id, user, is_public=is_public))


@router.put("/i/{workflow_id}/opened_at")
async def update_opened_at(needs: Needs, user: CurrentUser, workflow_id: WorkflowId) -> Any:
    """Set the time at which a workflow was last opened to now."""
    await service.open_workflow(needs, workflow_id, user)


@router.put("/i/{workflow_id}/thumbnail", response_model=WorkflowRecordDTO)
async def set_workflow_thumbnail(
    needs: Needs,
    user: CurrentUser,
    workflow_id: WorkflowId,
    image: Annotated[UploadFile, File(description="The image.")],
) -> Response:
    """Set the thumbnail of a workflow; returns null."""
    await service.set_thumbnail(needs, workflow_id, await image.read(), image.content_type, user)
    return _json(b"null")


@router.delete("/i/{workflow_id}/thumbnail", response_model=WorkflowRecordDTO)
async def delete_workflow_thumbnail(needs: Needs, user: CurrentUser, workflow_id: WorkflowId) -> Response:
    """Delete the thumbnail of a workflow; returns null."""
    await service.delete_thumbnail(needs, workflow_id, user)
    return _json(b"null")


@router.get("/i/{workflow_id}/thumbnail", responses=THUMBNAIL_RESPONSES)
async def get_workflow_thumbnail(needs: Needs, user: MediaUser, workflow_id: WorkflowId) -> Response:
    """Get the thumbnail of a workflow."""
    return await responses.thumbnail(await service.thumbnail_of(needs, workflow_id, user), needs.settings)
