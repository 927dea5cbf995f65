"""The routers of ComfyUI's API, errors in ComfyUI's form, and query parameters."""

from fastapi import Request, Response

from invokeclone.shims.compat_api import Problem, RequestRejected, json_response
from invokeclone.shims.compat_api import router as compat_router

MAX_ID_LENGTH = 200
MAX_DIGITS = 18
_KINDS = {401: "unauthorized", 403: "forbidden", 404: "not_found"}


def render(problem: Problem) -> Response:
    """Return an error in ComfyUI's form."""
    kind = problem.code or _KINDS.get(
        problem.status,
        "invalid_request" if problem.status < 500 else "internal_error",  # noqa: PLR2004  (server errors)
    )
    details = problem.param or ""
    error = {"type": kind, "message": problem.message, "details": details, "extra_info": {}}
    return json_response({"error": error, "node_errors": {}}, problem.status, problem.headers)


def query_number(request: Request, name: str) -> int | None:
    """Return an integer of the query, None without it; raises RequestRejected."""
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        return int(text[:MAX_DIGITS])
    except ValueError as error:
        raise RequestRejected("must be an integer", name) from error


def query_flag(request: Request, name: str, *, default: bool = False) -> bool:
    """Return a flag of the query: `true` or `false`, in any case."""
    text = request.query_params.get(name, "").lower()
    return text != "false" if default else text == "true"


routes = compat_router(render)
"""Served at the root, below /api and below /comfyui."""
api_routes = compat_router(render)
"""Served below /api and /comfyui/api only, as in ComfyUI."""
