"""Authentication by default: in multi-user mode a route that does not ask who calls it is refused without a valid token.

Routes ask by taking a user (`CurrentUser`, `Admin`, `Caller` …). For one that takes none, the application does; what is open to
everybody stands in OPEN, by method and path.
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
from invokeclone.users import caller, current
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
    }
)
"""The dependencies that ask who calls."""

OPEN = {
    "GET /": "the page, before anybody signs in",
    "GET /page/{name}": "the page's files",
    "GET /health": "whoever watches over the process",
    "GET /api/v1/health": "the same, where clients of InvokeAI ask",
    "GET /openapi.json": "the same for everybody",
    "GET /docs": "shows the above",
    "GET /redoc": "shows the above",
    "GET /api/v1/app/version": "clients ask it first",
    "GET /api/v1/auth/status": "whether to sign in",
    "POST /api/v1/auth/setup": "makes the first account, refused when there is one",
    "POST /api/v1/auth/login": "signs in",
    "GET /api/v2/models/i/{key}/image": "browsers fetch it without a token; models are everybody's",
    "GET /v1/images/files/{token}": "the token is the right to see it",
    "GET /openai/v1/images/files/{token}": "the token is the right to see it",
    "GET /openai/images/files/{token}": "the token is the right to see it",
    "MOUNT /ws": "socket.io: server/socket_sessions.py asks for a token when a socket opens",
    **{f"WEBSOCKET {prefix}/ws": "ComfyUI: asks for a key in the handshake" for prefix in PREFIXES},
}
"""What needs no token, and why. Addresses that no route knows get files of the official web UI, which are the same for everybody."""


@dataclass(frozen=True)
class RouteEntry:
    """A row of the route table."""

    key: str
    """Method and path."""
    route: BaseRoute

    @property
    def asks(self) -> bool:
        """Whether the route itself asks who calls."""
        return _asks(self.route)


def table(app: FastAPI) -> list[RouteEntry]:
    """Return every route of the application, those of included routers and mounted applications too."""
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
    """A route that cannot ask who calls, because it takes no dependencies, and is not listed as open."""


def check(app: FastAPI) -> None:
    """Raise UnguardedRoute for a plain route or a mounted application that nobody has declared open."""
    for entry in table(app):
        if not isinstance(entry.route, APIRoute) and entry.key not in OPEN:
            raise UnguardedRoute(f"{entry.key} asks nobody for a token: add it to OPEN, with the reason")


class Authentication:
    """The check of every route of one application."""

    def __init__(self) -> None:
        """Read the route table with the first request that it decides, when all routes are there."""
        self._open: list[BaseRoute] | None = None

    async def require(self, connection: HTTPConnection, sign_in: Identity) -> None:
        """Refuse who shows no valid token, unless the route asks by itself or is open; raises NotSignedIn."""
        route = connection.scope.get("route")
        if sign_in is not None or _asks(route):
            return
        if self._open is None:
            self._open = [entry.route for entry in table(connection.app) if entry.key in OPEN]
        if not any(entry is route for entry in self._open):
            raise current.NotSignedIn


def by_default(settings: Settings) -> list[Any]:
    """Return the dependencies of every route: none where everybody is the one user, as each costs as much as a small read."""
    return [Depends(Authentication().require)] if settings.multiuser else []
