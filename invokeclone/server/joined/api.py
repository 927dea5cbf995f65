"""The route by which workers of other machines join, and the list of all workers."""

from typing import Annotated

from fastapi import APIRouter, Depends, WebSocket
from pydantic import BaseModel, Field

from invokeclone.kit.requests import service, services_of
from invokeclone.server.joined.protocol import PATH
from invokeclone.server.joined.service import JoinedWorkers
from invokeclone.server.supervision.supervisor import Supervisor
from invokeclone.users.current import Admin

router = APIRouter(tags=["workers"])


class WorkerStatus(BaseModel):
    """A worker of this server's machine, or one that has joined."""

    device: str = Field(description="Its device; that of a joined worker follows the name of its machine and a slash.")
    machine: str | None = Field(description="The name of a joined worker's machine; null for this server's.")
    connected: bool = Field(description="Whether its process runs; of a joined worker, whether it is connected.")
    ready: bool = Field(description="Whether it runs items.")
    item_id: int | None = Field(description="The item that it runs.")


@router.get("/api/v1/workers/", operation_id="list_workers")
async def list_workers(
    supervisor: Annotated[Supervisor, Depends(service(Supervisor))], _user: Admin
) -> list[WorkerStatus]:
    """List the workers of this machine and those that have joined."""
    return [
        WorkerStatus(
            device=worker.device,
            machine=worker.name,
            connected=worker.link is not None,
            ready=worker.ready,
            item_id=worker.item_id,
        )
        for worker in supervisor.workers
    ]


@router.websocket(PATH)
async def join(socket: WebSocket) -> None:
    """Join as a worker; requires a worker token in the handshake."""
    await services_of(socket).get(JoinedWorkers).serve(socket)
