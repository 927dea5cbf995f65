"""`/metrics` for Prometheus: figures of requests, sockets, workers and queues; docs/metrics.md has the table."""

from invokeclone.kit.requests import Application
from invokeclone.server.metrics.api import router
from invokeclone.server.metrics.requests import RequestTimer, RequestTimes


def install(app: Application, *, enabled: bool) -> None:
    """Time the requests of `app` from this layer inwards and serve `/metrics`; without effect unless `enabled`."""
    if enabled:
        app.add_middleware(RequestTimer, times=app.services.add(RequestTimes, RequestTimes(app)))
        app.include_router(router)
