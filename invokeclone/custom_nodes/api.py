"""Routes of custom node packs, for admins. Failures are reported in the response body."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from invokeclone.custom_nodes.schemas import (
    InstallNodePackRequest,
    InstallNodePackResponse,
    NodePackListResponse,
    UninstallNodePackResponse,
)
from invokeclone.custom_nodes.service import Packs
from invokeclone.kit.requests import service
from invokeclone.users.current import Admin

router = APIRouter(prefix="/api/v2/custom_nodes", tags=["custom_nodes"])


NeedsPacks = Annotated[Packs, Depends(service(Packs))]


@router.get("/")
async def list_custom_node_packs(packs: NeedsPacks, _user: Admin) -> NodePackListResponse:
    """List the installed packs."""
    return await packs.listing()


@router.post("/install")
async def install_custom_node_pack(
    packs: NeedsPacks, user: Admin, request: InstallNodePackRequest
) -> InstallNodePackResponse:
    """Install a pack from a git URL or a folder. Its dependencies are reported, but not installed."""
    return await packs.install(request.source, user)


@router.post("/reload")
async def reload_custom_nodes(packs: NeedsPacks, _user: Admin) -> dict[str, str]:
    """Reload all packs in the folder."""
    return {"status": await packs.reload()}


@router.delete("/{pack_name}")
async def uninstall_custom_node_pack(
    packs: NeedsPacks, _user: Admin, pack_name: Annotated[str, Path(description="Name of the pack.")]
) -> UninstallNodePackResponse:
    """Remove a pack, its nodes and its workflows."""
    return await packs.uninstall(pack_name)
