"""The route that describes what a model can do in a generation request."""

from fastapi import APIRouter

from invokeclone.kit.requests import Needs
from invokeclone.queue.generation.capabilities import ModelCapabilities, find_capabilities
from invokeclone.users.current import CurrentUser

router = APIRouter(prefix="/api/v2/models", tags=["model_manager"])


@router.get("/i/{key}/capabilities", operation_id="get_model_capabilities")
async def get_model_capabilities(needs: Needs, _user: CurrentUser, key: str) -> ModelCapabilities:
    """Get what a main model can do: features, schedulers, default settings and limits of generation requests."""
    async with needs.database.read() as connection:
        return await find_capabilities(connection, needs.settings.limits, key)
