"""Durations of HTTP requests, by route; recording takes about a microsecond per request on the event loop.

Routes are labeled with their path template, so that paths and methods made up by clients add no series.
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
"""Label of requests without a route (such as files of the official web UI) or refused before routing."""
NO_ANSWER = "none"
"""Status label of requests whose client disconnected before the response."""

SECONDS = Metric(
    "invokeclone_http_request_duration_seconds",
    "histogram",
    "Seconds until the response to an HTTP request was sent completely, by method, route and status class.",
    ("method", "route", "status"),
    (0.005, 0.025, 0.1, 0.5, 2.5, 10),
)
METRICS = (SECONDS,)


class RequestTimes:
    """Request durations of one application."""

    def __init__(self, app: FastAPI) -> None:
        """Start empty; the route table of `app` is read at the first request, when all routes are registered."""
        self.numbers = MetricValues(METRICS)
        self._app = app
        self._templates: dict[int, str] = {}

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """Record a request; `status` 0 means that no response was sent."""
        method = scope["method"]
        self.numbers.observe(
            SECONDS,
            method if method in METHODS else OTHER,
            self._route(scope),
            f"{status // 100}xx" if status else NO_ANSWER,
            value=seconds,
        )

    def _route(self, scope: Scope) -> str:
        """Return the matched route's template. Starlette sets `route` for API routes only, but `endpoint` for all."""
        if not self._templates:
            self._templates.update(self._read())
        templates = self._templates
        return templates.get(id(scope.get("route"))) or templates.get(id(scope.get("endpoint"))) or UNMATCHED

    def _read(self) -> Iterator[tuple[int, str]]:
        """Yield templates by the ids of routes and endpoints, which live as long as the application."""
        for entry in reversed(table(self._app)):  # several routes may share an endpoint: the first one wins
            template = entry.key.partition(" ")[2]
            yield id(entry.route), template
            endpoint = getattr(entry.route, "endpoint", None) or getattr(entry.route, "app", None)
            if endpoint is not None:
                yield id(endpoint), template


class RequestTimer:
    """Times every HTTP request."""

    def __init__(self, app: ASGIApp, times: RequestTimes) -> None:
        """Record the requests to `app` in `times`."""
        self._app = app
        self._times = times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application and record the request when it ends, also on an error."""
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
