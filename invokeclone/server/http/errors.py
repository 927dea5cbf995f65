"""Conversion of exceptions to error responses of the form `{"detail": …}`.

The response is valid JSON for any exception: bytes, exceptions, NaN and lone surrogates are converted to text, and
large inputs are not repeated.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from invokeclone.kit import log
from invokeclone.kit.errors import InvokeCloneError

INPUT_LIMIT = 2_000
"""Maximum JSON size in bytes of an invalid input that is repeated in the response."""

MESSAGE_LIMIT = 10_000
DEPTH_LIMIT = 40

_log = log.get("server")


def answer(status: int, detail: object, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error response."""
    return Response(
        orjson.dumps({"detail": plain(detail)}, option=orjson.OPT_NON_STR_KEYS),
        status_code=status,
        headers=dict(headers) if headers else None,
        media_type="application/json",
    )


def plain(value: object, depth: int = 0) -> Any:  # noqa: PLR0911  (one return per kind of value)
    """Return `value` in JSON types: numbers that JSON cannot represent, bytes and objects become text."""
    if depth > DEPTH_LIMIT:
        return "…"
    match value:
        case None | bool():
            return value
        case int():
            return int(value) if -(2**63) <= value < 2**63 else str(value)[:MESSAGE_LIMIT]
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return value.encode("utf-8", "replace").decode()
        case bytes() | bytearray():
            return bytes(value).decode("utf-8", "replace")
        case Mapping():
            return {str(plain(key, depth + 1)): plain(item, depth + 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item, depth + 1) for item in value]
        case _:
            return str(value).encode("utf-8", "replace").decode()[:MESSAGE_LIMIT]


def validation_details(errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return pydantic's errors without URLs, and with `input` only if it is small."""
    details = []
    for error in errors:
        detail = {key: plain(item) for key, item in error.items() if key not in ("url", "input")}
        if "input" in error and _small(error["input"]):
            detail["input"] = plain(error["input"])
        details.append(detail)
    return details


def _small(value: object) -> bool:
    """Return whether the JSON of `value` is within INPUT_LIMIT, without traversing a large value completely."""
    budget = INPUT_LIMIT
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting.extend(item.values())
            budget -= 8 * len(item)
        elif isinstance(item, list | tuple | set | frozenset):
            waiting.extend(item)
            budget -= 2 * len(item)
        elif isinstance(item, str | bytes | bytearray):
            budget -= len(item)
        else:
            budget -= 8
        if budget < 0:
            return False
    return True


async def _application_error(_request: Request, error: Exception) -> Response:
    app_error = cast("InvokeCloneError", error)
    return answer(app_error.status, str(app_error) or type(app_error).__name__, app_error.headers)


async def _invalid(_request: Request, error: Exception) -> Response:
    return answer(422, validation_details(list(cast("RequestValidationError", error).errors())))


async def _http(_request: Request, error: Exception) -> Response:
    http = cast("HTTPException", error)
    return answer(http.status_code, http.detail, http.headers)


async def _beyond_sqlite(_request: Request, error: Exception) -> Response:
    """Respond to a value that SQLite cannot store: an integer over 64 bits, invalid Unicode."""
    return answer(422, f"a value cannot be stored: {error}")


async def _internal_error(request: Request, error: Exception) -> Response:
    """Respond to an unexpected error: the client gets the type of the error; the ASGI server logs the traceback."""
    _log.error("%s %s failed: %s: %s", request.method, request.url.path, type(error).__name__, error)
    return answer(500, f"{type(error).__name__}: internal server error; see the server's log")


def install(app: FastAPI) -> None:
    """Register the exception handlers of `app`."""
    from invokeclone.server.http import storage_errors  # imports this module

    app.add_exception_handler(InvokeCloneError, _application_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OverflowError, _beyond_sqlite)
    app.add_exception_handler(UnicodeEncodeError, _beyond_sqlite)
    storage_errors.install(app)
    app.add_exception_handler(Exception, _internal_error)
