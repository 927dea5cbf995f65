"""Authentication by default: in multi-user mode every route needs a valid token unless it is listed as open.

Routes authenticate by depending on a user (`CurrentUser`, `Admin`, `Caller` …). The application does so for those
without such a dependency; OPEN lists the public routes by method and path.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from invokeclone.kit.config.settings import Settings
from invokeclone.shims.comfyui.api import PREFIXES
from invokeclone.users import caller, current, joined
from invokeclone.users.current import Identity

CHECKS = frozenset(
    {
        current.current_user,
        current.admin,
        current.media_user,
        current.account,
        current.require_sign_in,
        current.require_admin_sign_in,
        caller.caller,
        joined.require_joined_worker,
    }
)
"""The dependencies that authenticate the caller."""

OPEN = {
    "GET /": "the page, loaded before sign-in",
    "GET /page/{name}": "the page's files",
    "GET /page/{version}/{name}": "the page's files, kept by browsers",
    "GET /health": "health checks",
    "GET /api/v1/health": "health checks of InvokeAI clients",
    "GET /openapi.json": "the same document for all users",
    "GET /docs": "shows the OpenAPI document",
    "GET /redoc": "shows the OpenAPI document",
    "GET /api/v1/app/version": "clients request it first",
    "GET /api/v1/auth/status": "whether sign-in is needed",
    "POST /api/v1/auth/setup": "creates the first account, refused if one exists",
    "POST /api/v1/auth/login": "signs in",
    "GET /api/v2/models/i/{key}/image": "browsers fetch it without a token; models are shared by all users",
    "GET /v1/images/files/{token}": "the token is the right to see it",
    "GET /openai/v1/images/files/{token}": "the token is the right to see it",
    "GET /openai/images/files/{token}": "the token is the right to see it",
    "WEBSOCKET /api/v1/workers/join": "joined workers: requires a worker token in the handshake",
    "MOUNT /ws": "socket.io: server/socket_sessions.py requires a token when a socket opens",
    **{f"WEBSOCKET {prefix}/ws": "ComfyUI: requires a key in the handshake" for prefix in PREFIXES},
}
"""Routes that need no token, and why. Paths without a route serve files of the official web UI, which are public."""


@dataclass(frozen=True)
class RouteEntry:
    """A row of the route table."""

    key: str
    """Method and path."""
    route: BaseRoute

    @property
    def asks(self) -> bool:
        """Whether the route itself authenticates the caller."""
        return _asks(self.route)


def table(app: FastAPI) -> list[RouteEntry]:
    """Return all routes of the application, including those of included routers, and its mounts."""
    return list(_entries(app.routes, ""))


def _entries(routes: Iterable[BaseRoute], prefix: str) -> Iterator[RouteEntry]:
    for route in routes:
        included: Any = getattr(route, "original_router", None)
        if included is not None:
            below: Any = route
            yield from _entries(included.routes, prefix + below.include_context.prefix)
        elif isinstance(route, Route):
            for method in sorted((route.methods or {"GET"}) - {"HEAD"} or {"HEAD"}):
                yield RouteEntry(f"{method} {prefix}{route.path}", route)
        elif isinstance(route, WebSocketRoute):
            yield RouteEntry(f"WEBSOCKET {prefix}{route.path}", route)
        else:
            path = route.path if isinstance(route, Mount) else repr(route)
            yield RouteEntry(f"MOUNT {prefix}{path}", route)


def _asks(route: object) -> bool:
    dependant = getattr(route, "dependant", None)
    return dependant is not None and not CHECKS.isdisjoint(_calls(dependant))


def _calls(dependant: Any) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)


class UnguardedRoute(RuntimeError):
    """A route without dependencies, which cannot authenticate its caller, is not listed as open."""


def check(app: FastAPI) -> None:
    """Raise UnguardedRoute for a plain route or a mounted application that is not in OPEN."""
    for entry in table(app):
        if not isinstance(entry.route, APIRoute) and entry.key not in OPEN:
            raise UnguardedRoute(f"{entry.key} does not require a token: add it to OPEN, with the reason")


class Authentication:
    """The default authentication of one application's routes."""

    def __init__(self) -> None:
        """Start without the route table, which is read at the first check, when all routes are registered."""
        self._open: list[BaseRoute] | None = None

    async def require(self, connection: HTTPConnection, sign_in: Identity) -> None:
        """Raise NotSignedIn without a valid token, unless the route authenticates by itself or is open."""
        route = connection.scope.get("route")
        if sign_in is not None or _asks(route):
            return
        if connection.scope["type"] == "websocket":  # all are in OPEN: see `check`
            return
        if self._open is None:
            self._open = [entry.route for entry in table(connection.app) if entry.key in OPEN]
        if not any(entry is route for entry in self._open):
            raise current.NotSignedIn


def by_default(settings: Settings) -> list[Any]:
    """Return the dependencies of all routes: none in single-user mode, as one costs as much as a small read."""
    return [Depends(Authentication().require)] if settings.multiuser else []
