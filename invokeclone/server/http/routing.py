"""A route index by constant path prefix, in front of FastAPI's linear route search.

With 300 routes the linear search costs more CPU than most requests. Each route is included separately; the index
selects the one or two candidates of a path, in order of inclusion. Requests without a full match (other method,
trailing slash, page, mounts) fall back to the linear search.
"""

from collections import defaultdict
from collections.abc import Iterator

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send


class RouteIndex:
    """Dispatches HTTP requests to indexed routes, and all others to the application's router."""

    def __init__(self, app: FastAPI) -> None:
        """Index the routes that are added to `app` through `include`."""
        self._app = app
        self._search = app.router.middleware_stack
        self._routes: defaultdict[str, list[tuple[int, BaseRoute]]] = defaultdict(list)
        app.router.middleware_stack = self

    def include(self, router: APIRouter) -> None:
        """Include the routes of `router` one by one, unchanged."""
        for route in router.routes:
            single = APIRouter(
                default_response_class=router.default_response_class,
                generate_unique_id_function=router.generate_unique_id_function,
                strict_content_type=router.strict_content_type,
            )
            single.routes.append(route)
            self._app.include_router(single)
            included = self._app.router.routes[-1]
            self._routes[_beginning(route, router)].append((len(self._app.router.routes), included))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch the request to the matching route."""
        if scope["type"] == "http":
            for route in self._candidates(scope["path"]):
                match, child_scope = route.matches(scope)
                if match is Match.FULL:
                    scope["router"] = self._app.router
                    scope.update(child_scope)
                    await route.handle(scope, receive, send)
                    return
        await self._search(scope, receive, send)

    def _candidates(self, path: str) -> Iterator[BaseRoute]:
        """Yield the routes whose prefix matches the path, in order of inclusion."""
        matches: list[tuple[int, BaseRoute]] = []
        end = len(path)
        while end >= 0:
            if routes := self._routes.get(path[:end]):
                matches += routes
            end = path.rfind("/", 0, end)
        if len(matches) > 1:
            matches.sort(key=lambda pair: pair[0])
        return (route for _, route in matches)


def _beginning(route: BaseRoute, router: APIRouter) -> str:
    """Return the path segments of a route before its first parameter; for a nested router, its prefix."""
    path: str | None = getattr(route, "path", None)
    if path is None:
        return router.prefix
    fixed, parameter, _ = path.partition("{")
    return fixed.rpartition("/")[0] if parameter else fixed
