"""Routes under /api/v1/model_relationships."""

from fastapi import APIRouter, Depends

from invokeclone.kit.requests import Read, Write
from invokeclone.models.records import relationships
from invokeclone.models.records.relationships import ModelRelationshipBatchRequest, ModelRelationshipCreateRequest
from invokeclone.users import current

router = APIRouter(prefix="/api/v1/model_relationships", tags=["model_relationships"])
_USERS = [Depends(current.current_user)]
_ADMINS = [Depends(current.admin)]


@router.get("/i/{model_key}", dependencies=_USERS)
async def get_related_models(connection: Read, model_key: str) -> list[str]:
    """List the keys of the models related to a model; an unknown model has none."""
    return await relationships.list_related(connection, [model_key])


@router.post(
    "/",
    status_code=204,
    operation_id="add_model_relationship_api_v1_model_relationships__post",
    dependencies=_ADMINS,
)
async def add_model_relationship(connection: Write, request: ModelRelationshipCreateRequest) -> None:
    """Relate two models to each other; has no effect if they are related already."""
    await relationships.add(connection, request.pair())


@router.delete(
    "/",
    status_code=204,
    operation_id="remove_model_relationship_api_v1_model_relationships__delete",
    dependencies=_ADMINS,
)
async def remove_model_relationship(connection: Write, request: ModelRelationshipCreateRequest) -> None:
    """Remove the relationship of two models; has no effect if there is none."""
    await relationships.remove(connection, request.pair())


@router.post("/batch", dependencies=_USERS)
async def get_related_models_batch(connection: Read, request: ModelRelationshipBatchRequest) -> list[str]:
    """List the keys of the models related to any of several models, without duplicates."""
    return await relationships.list_related(connection, request.model_keys)
