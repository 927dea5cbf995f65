"""Routes and request bodies of compatibility APIs: every error is rendered in the form of the API it belongs to.

Does not depend on any one compatibility API.
"""

import json
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Scope

from invokeclone.kit import log
from invokeclone.kit.config import limits as limit_checks
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.errors import BadRequest, InvokeCloneError, TooLarge, Unprocessable
from invokeclone.kit.json_text import SLICE_SIZE, decode
from invokeclone.kit.process.offload import off_loop
from invokeclone.kit.requests import FormRequest, resources_of

_log = log.get("shims")
Body = TypeVar("Body", bound=BaseModel)
_UNQUOTABLE = re.compile(r"[^ -\[\]-~]")
MAX_WARNING_LENGTH = 1000
"""Characters of a warning in a header."""
_UNSUPPORTED_STATUSES = (422, 424)
"""Statuses that clients of compatibility APIs do not know or misinterpret."""


@dataclass(frozen=True)
class Problem:
    """An error before a compatibility API renders it."""

    status: int
    message: str
    param: str | None = None
    """The part of the request at fault."""
    code: str | None = None
    """Machine-readable code, where the API has one."""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def common_status(self) -> int:
        """The status, with 400 in place of statuses that clients of compatibility APIs do not know."""
        return 400 if self.status in _UNSUPPORTED_STATUSES else self.status


Render = Callable[[Problem], Response]


class RequestRejected(BadRequest):
    """The request is invalid or not supported; `param` names the part at fault."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.problem_code = code


class BodyTooLarge(TooLarge):
    """The request body is over the limit of its route."""


def problem_of(error: Exception) -> Problem:  # noqa: PLR0911  (a table, a row per kind of error)
    """Return the problem of an exception; an unexpected one is logged and becomes a 500."""
    match error:
        case RequestRejected():
            return Problem(error.status, str(error), error.param, error.problem_code)
        case InvokeCloneError():
            return Problem(error.status, str(error) or type(error).__name__, headers=error.headers)
        case RequestValidationError():
            return _validation_problem(list(error.errors()), skip=1)
        case ValidationError():
            return _validation_problem([dict(problem) for problem in error.errors()], skip=0)
        case HTTPException():
            return Problem(error.status_code, str(error.detail), headers=error.headers or {})
        case ClientDisconnect():
            _log.debug("a client disconnected while sending its request")
            return Problem(400, "the request is incomplete")
        case _:
            _log.error("a request failed", exc_info=error)
            return Problem(500, f"{type(error).__name__}: internal server error; see the server's log")


def _validation_problem(errors: list[dict[str, Any]], skip: int) -> Problem:
    """Return pydantic's first error with its path, without the first `skip` parts of the path (such as `body`)."""
    first = errors[0]
    path = ".".join(str(part) for part in first["loc"][skip:])
    text = str(first["msg"]).removeprefix("Value error, ")
    return Problem(400, f"{path}: {text}" if path else text, path or None)


class Warnings:
    """Parts of a request that are not fulfilled although it succeeds.

    They are errors for clients that insist, by the header `Prefer: handling=strict` (RFC 7240).
    """

    def __init__(self, request: Request) -> None:
        preferences = request.headers.get("prefer", "").lower().replace(" ", "").replace(";", ",").split(",")
        self._is_strict = "handling=strict" in preferences
        self.texts: list[str] = []

    def add(self, text: str, param: str) -> None:
        """Record a warning. Raises RequestRejected for a client that insists."""
        if self._is_strict:
            raise RequestRejected(text, param)
        self.texts.append(text)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response: `Warning`, code 299."""
        values = [f'299 - "{_quotable(text)}"' for text in self.texts]
        return {"Warning": ", ".join(values)} if values else {}


def _quotable(text: str) -> str:
    """Return a text as it may be in a quoted string of a header: printable ASCII without quotes and backslashes."""
    return _UNQUOTABLE.sub("?", text.replace('"', "'"))[:MAX_WARNING_LENGTH]


def router(render: Render, accepts: Callable[[Scope], bool] | None = None, **arguments: Any) -> APIRouter:
    """Return a router whose routes render errors with `render` and are left out of the OpenAPI document.

    With `accepts`, only the requests for which it returns True match its routes.
    """

    class Route(APIRoute):
        """A route of a compatibility API."""

        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            """Return whether the route serves a request, and the values of its path."""
            return super().matches(scope) if accepts is None or accepts(scope) else (Match.NONE, {})

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """Return FastAPI's handler with every exception rendered."""
            handle = super().get_route_handler()

            async def handler(request: Request) -> Response:
                try:
                    return await handle(FormRequest(request.scope, request.receive))
                except Exception as error:  # noqa: BLE001  (every error is rendered in the API's form)
                    return render(problem_of(error))

            return handler

    return APIRouter(route_class=Route, include_in_schema=False, **arguments)


async def read_json(request: Request, model: type[Body], *, with_images: bool = False) -> Body:
    """Return the body as `model`, whatever its content type; an empty body counts as an empty object.

    Nulls count as left out. Raises RequestRejected for a body that is not JSON, BodyTooLarge, and ValidationError.
    """
    return model.model_validate(await read_object(request, with_images=with_images))


async def read_object(request: Request, *, with_images: bool = False) -> dict[str, Any]:
    """Return the body as a JSON object without its null members; an empty body counts as an empty object."""
    content = await read_value(request, with_images=with_images)
    if not isinstance(content, dict):
        raise RequestRejected("the body must be a JSON object")
    return {name: value for name, value in content.items() if value is not None}


async def read_value(request: Request, *, with_images: bool = False) -> Any:
    """Return the body as JSON; bodies without images have a limit of their own."""
    data = await request.body()
    limits = resources_of(request).settings.limits
    if not with_images and len(data) > limits.plain_json_kib * 1024:
        raise BodyTooLarge(
            f"the request body is larger than {limits.plain_json_kib} KiB (setting limits.plain_json_kib)"
        )

    def read() -> Any:
        return decode(data or b"{}", limits)

    try:
        return read() if len(data) < SLICE_SIZE else await off_loop(read)
    except json.JSONDecodeError as error:
        raise RequestRejected(f"the body is not valid JSON: {error}") from error


def check_images(count: int, limits: Limits, param: str) -> None:
    """Raise RequestRejected for more images than one request may ask for."""
    if count > limits.request_images:
        raise RequestRejected(
            f"{count} images are more than {limits.request_images} (setting limits.request_images)", param
        )


def check_prompt(prompt: str, limits: Limits, param: str) -> None:
    """Raise RequestRejected for a prompt that is too long."""
    try:
        limit_checks.check_prompt(prompt, limits)
    except Unprocessable as error:
        raise RequestRejected(str(error), param) from error


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response of the bare content type `application/json`, which some clients require."""
    return Response(orjson.dumps(content), status, dict(headers or {}), "application/json")
