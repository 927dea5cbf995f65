"""The `/metrics` route."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from invokeclone.kit.process.offload import off_loop
from invokeclone.kit.requests import Reads, services_of
from invokeclone.server.metrics import figures
from invokeclone.users.current import Admin

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
async def get_metrics(request: Request, database: Reads, _admin: Admin) -> Response:
    """Return all metrics in the Prometheus text format; not part of InvokeAI's API."""
    from invokeclone.server.metrics import exposition  # importing the library takes 50 ms: done on the first request

    numbers = await figures.measure(services_of(request), database)
    compress = "gzip" in request.headers.get("accept-encoding", "")
    body = await off_loop(lambda: exposition.render(numbers, compress=compress))
    headers = {"Vary": "Accept-Encoding", "Cache-Control": "no-store"}
    if compress:
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type=exposition.CONTENT_TYPE, headers=headers)
