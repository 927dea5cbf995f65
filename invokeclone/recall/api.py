"""Recall routes."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from invokeclone.kit.requests import Needs
from invokeclone.recall import service
from invokeclone.recall.schemas import RecallParameter
from invokeclone.users.current import CurrentUser

router = APIRouter(prefix="/api/v1/recall", tags=["recall"])

QueueId = Annotated[str, Path(description="The queue's id.")]


@router.post("/{queue_id}")
async def update_recall_parameters(
    needs: Needs,
    user: CurrentUser,
    queue_id: QueueId,
    parameters: RecallParameter,
    strict: Annotated[bool, Query(description="Whether to reset absent parameters.")] = False,
    append: Annotated[bool, Query(description="Whether to keep the existing reference images.")] = False,
) -> dict[str, Any]:
    """Set parameters in the user's web UI."""
    return await service.recall(needs, queue_id, user, parameters, strict=strict, append=append)


@router.get("/{queue_id}")
async def get_recall_parameters(_user: CurrentUser, queue_id: QueueId) -> dict[str, Any]:
    """Describe where recalled parameters are stored."""
    return {
        "status": "success",
        "queue_id": queue_id,
        "note": "POST sets parameters; the latest values are in the client state under keys that begin with recall_.",
    }
