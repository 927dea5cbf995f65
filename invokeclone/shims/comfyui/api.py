"""The routes of ComfyUI's API, at the root, below /api and below /comfyui; `routes/` has them by theme."""

import uuid

from fastapi import APIRouter, WebSocket
from starlette.routing import Route, WebSocketRoute

from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.requests import Needs
from invokeclone.shims.comfyui.routes import images, info, jobs, prompts, user_data
from invokeclone.shims.comfyui.routes.routing import MAX_ID_LENGTH, api_routes, render, routes
from invokeclone.shims.comfyui.sockets import clients_of
from invokeclone.shims.compat_api import problem_of
from invokeclone.users.caller import caller
from invokeclone.users.current import Identity, identify

__all__ = [
    "PREFIXES",
    "api_routes",
    "images",
    "info",
    "jobs",
    "paths",
    "prompts",
    "render",
    "router",
    "routes",
    "user_data",
]

PREFIXES = ("", "/api", "/comfyui", "/comfyui/api")
API_PREFIXES = ("/api", "/comfyui/api")


@routes.websocket("/ws")
async def socket(websocket: WebSocket, needs: Needs, identity: Identity) -> None:
    """Send a client the progress of its prompts."""
    client_id = websocket.query_params.get("clientId", "")[:MAX_ID_LENGTH] or uuid.uuid4().hex

    async def check_access() -> object:
        return await caller(websocket, needs, await identify(websocket))

    try:
        user = await caller(websocket, needs, identity)
        await clients_of(websocket).serve(websocket, user, client_id, check_access)
    except InvokeCloneError as error:
        await websocket.send_denial_response(render(problem_of(error)))


_PARTS = [(prefix, part) for part, prefixes in ((routes, PREFIXES), (api_routes, API_PREFIXES)) for prefix in prefixes]
router = APIRouter(include_in_schema=False)
for _prefix, _part in _PARTS:
    router.include_router(_part, prefix=_prefix)


def paths() -> tuple[str, ...]:
    """Return the paths of all routes, each up to its first parameter."""
    return tuple(
        dict.fromkeys(
            prefix + route.path.partition("{")[0]
            for prefix, part in _PARTS
            for route in part.routes
            if isinstance(route, Route | WebSocketRoute)
        )
    )
