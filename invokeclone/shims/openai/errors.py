"""OpenAI's error format; the SDK chooses its exception by the status and keeps the four members."""

from typing import Any

from fastapi import Response

from invokeclone.shims.compat_api import Problem, json_response

_SERVER_ERROR = 500
_CODES = {
    401: "invalid_api_key",
    404: "not_found",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    503: "service_unavailable",
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def render(problem: Problem) -> Response:
    """Return the error response.

    Clients are told not to retry a server error, since the generation would fail again, unless there is a time to
    retry after.
    """
    status = problem.common_status
    headers = dict(problem.headers)
    if status >= _SERVER_ERROR and "Retry-After" not in headers:
        headers["x-should-retry"] = "false"
    return json_response(body(problem, status), status, headers)


def body(problem: Problem, status: int | None = None) -> dict[str, Any]:
    """Return the error object, which is also the last event of a failed stream."""
    status = problem.status if status is None else status
    default_type = "server_error" if status >= _SERVER_ERROR else "invalid_request_error"
    return {
        "error": {
            "message": problem.message,
            "type": _TYPES.get(status, default_type),
            "param": problem.param,
            "code": problem.code or _CODES.get(status),
        }
    }
