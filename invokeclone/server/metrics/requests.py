"""How long requests take, by route: a list of numbers each, changed on the event loop, about a microsecond a request.

A route goes by its template, so what clients make up (paths, methods) adds no series.
"""

import time
from collections.abc import Iterator

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invokeclone.kit.metrics import Metric, MetricValues
from invokeclone.server.http.authentication import table

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
UNMATCHED = "unmatched"
"""The route of addresses that no route has, or that were refused before it was looked for: files of the official web UI are among them."""
NO_ANSWER = "none"
"""The status of requests whose client left before there was one."""

SECONDS = Metric(
    "invokeclone_http_request_duration_seconds",
    "histogram",
    "Seconds until the whole answer of an HTTP request was sent, by method, route and class of status.",
    ("method", "route", "status"),
    (0.005, 0.025, 0.1, 0.5, 2.5, 10),
)
METRICS = (SECONDS,)


class RequestTimes:
    """The times of one application's requests."""

    def __init__(self, app: FastAPI) -> None:
        """Begin with none; the route table of `app` is read with the first request, when all routes are there."""
        self.numbers = MetricValues(METRICS)
        self._app = app
        self._templates: dict[int, str] = {}

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that has been answered with `status`, or with nothing (0)."""
        method = scope["method"]
        self.numbers.observe(
            SECONDS,
            method if method in METHODS else OTHER,
            self._route(scope),
            f"{status // 100}xx" if status else NO_ANSWER,
            value=seconds,
        )

    def _route(self, scope: Scope) -> str:
        """Return the template of the route that answered: Starlette notes the route of API routes, and the endpoint of all."""
        if not self._templates:
            self._templates.update(self._read())
        templates = self._templates
        return templates.get(id(scope.get("route"))) or templates.get(id(scope.get("endpoint"))) or UNMATCHED

    def _read(self) -> Iterator[tuple[int, str]]:
        """Yield templates by the identity of routes and of endpoints, which live as long as the application."""
        for entry in reversed(table(self._app)):  # where several have one endpoint, the first one stands for all
            template = entry.key.partition(" ")[2]
            yield id(entry.route), template
            endpoint = getattr(entry.route, "endpoint", None) or getattr(entry.route, "app", None)
            if endpoint is not None:
                yield id(endpoint), template


class RequestTimer:
    """Times every HTTP request."""

    def __init__(self, app: ASGIApp, times: RequestTimes) -> None:
        """Tell `times` of the requests to `app`."""
        self._app = app
        self._times = times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count it when it has ended, however it did."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except Exception:
            status = status or 500
            raise
        finally:
            self._times.note(scope, status, time.perf_counter() - began)
