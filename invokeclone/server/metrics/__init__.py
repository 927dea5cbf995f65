"""The Prometheus endpoint `/metrics`: metrics of requests, sockets, workers and queues, listed in docs/metrics.md."""

from invokeclone.kit.requests import Application
from invokeclone.server.metrics.api import router
from invokeclone.server.metrics.requests import RequestTimer, RequestTimes


def install(app: Application, *, enabled: bool) -> None:
    """Time the requests that reach this middleware layer and serve `/metrics`; does nothing unless `enabled`."""
    if enabled:
        app.add_middleware(RequestTimer, times=app.services.add(RequestTimes, RequestTimes(app)))
        app.include_router(router)
