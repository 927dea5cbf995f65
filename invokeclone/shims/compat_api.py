"""How a dialect's routes fail: whatever goes wrong inside is worded by the dialect, never in the server's own form.

It also reads bodies, so that a wrong one is told in those words too. It knows no dialect.
"""

import json
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

from invokeclone.kit import log
from invokeclone.kit.config import limits as limits_of_text
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.errors import BadRequest, InvokeCloneError, TooLarge, Unprocessable
from invokeclone.kit.json_text import SLICE_SIZE, decode
from invokeclone.kit.process.offload import off_loop
from invokeclone.kit.requests import FormRequest, resources_of

_log = log.get("shims")
Body = TypeVar("Body", bound=BaseModel)
_UNSUPPORTED_STATUSES = (422, 424)
"""Statuses that clients of other dialects don't know, or take for something else."""


@dataclass(frozen=True)
class Problem:
    """What went wrong, before a dialect words it."""

    status: int
    message: str
    param: str | None = None
    """Which part of the request."""
    code: str | None = None
    """A word for programs, where the dialect has one."""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def common_status(self) -> int:
        """The status, where one that clients of other dialects don't know is that of a bad request."""
        return 400 if self.status in _UNSUPPORTED_STATUSES else self.status


Render = Callable[[Problem], Response]


class RequestRejected(BadRequest):
    """A dialect refuses a request, naming the part."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.problem_code = code


class BodyTooLarge(TooLarge):
    """The body is over what a route of this kind reads."""


def problem_of(error: Exception) -> Problem:  # noqa: PLR0911  (a table, a row per kind of error)
    """Return what an exception says; one that nobody expected becomes a 500 and is logged."""
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
            _log.debug("a client left while it sent its request")
            return Problem(400, "the request is not complete")
        case _:
            _log.error("a request failed", exc_info=error)
            return Problem(500, f"{type(error).__name__}: the server failed on this request; the log says more")


def _validation_problem(errors: list[dict[str, Any]], skip: int) -> Problem:
    """Return pydantic's first error, with the path of its place; `skip` leaves out where in the request it was."""
    first = errors[0]
    path = ".".join(str(part) for part in first["loc"][skip:])
    text = str(first["msg"]).removeprefix("Value error, ")
    return Problem(400, f"{path}: {text}" if path else text, path or None)


def router(render: Render, **arguments: Any) -> APIRouter:
    """Return a router whose routes word their errors by `render`. They are not part of InvokeAI's document."""

    class Route(APIRoute):
        """A route of the dialect."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """Return FastAPI's handler with every exception worded."""
            handle = super().get_route_handler()

            async def handler(request: Request) -> Response:
                try:
                    return await handle(FormRequest(request.scope, request.receive))
                except Exception as error:  # noqa: BLE001  (whatever it is, the client reads it in its own dialect)
                    return render(problem_of(error))

            return handler

    return APIRouter(route_class=Route, include_in_schema=False, **arguments)


async def read_json(request: Request, model: type[Body], *, with_images: bool = False) -> Body:
    """Return the body as `model`, whatever content type it came under; an empty body is an empty object.

    Nulls count as left out. Raises Refused for what isn't JSON or doesn't fit, RefusedAsTooLarge.
    """
    return model.model_validate(await read_object(request, with_images=with_images))


async def read_object(request: Request, *, with_images: bool = False) -> dict[str, Any]:
    """Return the body as a JSON object without those of its members that are null; a body without images has its own limit."""
    data = await request.body()
    limits = resources_of(request).settings.limits
    if not with_images and len(data) > limits.plain_json_kib * 1024:
        raise BodyTooLarge(f"the body is over {limits.plain_json_kib} KiB (setting limits.plain_json_kib)")

    def read() -> Any:
        return decode(data or b"{}", limits)

    try:
        content = read() if len(data) < SLICE_SIZE else await off_loop(read)
    except json.JSONDecodeError as error:
        raise RequestRejected(f"the body is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise RequestRejected("the body must be a JSON object")
    return {name: value for name, value in content.items() if value is not None}


def check_images(count: int, limits: Limits, param: str) -> None:
    """Raise Refused for more images than one request may ask for."""
    if count > limits.request_images:
        raise RequestRejected(
            f"{count} images are more than {limits.request_images} (setting limits.request_images)", param
        )


def check_prompt(prompt: str, limits: Limits, param: str) -> None:
    """Raise Refused for a prompt that is too long."""
    try:
        limits_of_text.check_prompt(prompt, limits)
    except Unprocessable as error:
        raise RequestRejected(str(error), param) from error


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return JSON of the bare content type, which some clients insist on."""
    return Response(orjson.dumps(content), status, dict(headers or {}), "application/json")
