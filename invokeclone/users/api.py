"""Routes of accounts: signing in and out, one's own account, and everybody's for admins."""

from fastapi import APIRouter

from invokeclone.kit.requests import Needs
from invokeclone.users import service
from invokeclone.users.schemas import SetupStatusResponse

router = APIRouter(prefix="/api/v1/auth", tags=["authentication"])


@router.get("/status", operation_id="get_setup_status_api_v1_auth_status_get")
async def get_setup_status(needs: Needs) -> SetupStatusResponse:
    """Tell whether users sign in here, and whether the first admin has still to be made."""
    return await service.setup_status(needs)
