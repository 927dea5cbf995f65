"""Routes that describe what models can do in a generation request."""

from fastapi import APIRouter

from invokeclone.kit.requests import Needs
from invokeclone.queue.generation.capabilities import (
    GenerationModels,
    ModelCapabilities,
    describe_all,
    find_capabilities,
)
from invokeclone.users.current import CurrentUser

router = APIRouter(prefix="/api/v2/models", tags=["model_manager"])


@router.get("/capabilities", operation_id="list_model_capabilities")
async def list_model_capabilities(needs: Needs, _user: CurrentUser) -> GenerationModels:
    """List the main models that can generate images, refiners excluded, the default one first, and what each can do."""
    async with needs.database.read() as connection:
        return await describe_all(connection, needs.settings.limits)


@router.get("/i/{key}/capabilities", operation_id="get_model_capabilities")
async def get_model_capabilities(needs: Needs, _user: CurrentUser, key: str) -> ModelCapabilities:
    """Get what a main model can do: features, schedulers, default settings and limits of generation requests."""
    async with needs.database.read() as connection:
        return await find_capabilities(connection, needs.settings.limits, key)
