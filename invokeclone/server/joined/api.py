"""The route by which workers of other machines join."""

from fastapi import APIRouter, WebSocket

from invokeclone.kit.requests import services_of
from invokeclone.server.joined.protocol import PATH
from invokeclone.server.joined.service import JoinedWorkers

router = APIRouter()


@router.websocket(PATH)
async def join(socket: WebSocket) -> None:
    """Join as a worker; requires a worker token in the handshake."""
    await services_of(socket).get(JoinedWorkers).serve(socket)
