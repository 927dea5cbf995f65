"""JSON request bodies of InvokeAI's API: strict decoding (`kit/json_text`), and null for fields with a default.

Large bodies are decoded off the event loop.
"""

import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, get_args, get_origin

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope

from invokeclone.graph.invocations.types import is_union, takes_none
from invokeclone.kit.errors import InvokeCloneError, Unprocessable
from invokeclone.kit.json_text import SLICE_SIZE, decode
from invokeclone.kit.process.garbage_collection import pause_gc
from invokeclone.kit.process.offload import off_loop
from invokeclone.kit.requests import FormRequest, resources_of

MANY_OBJECTS = 256 * 1024
"""Body size in bytes from which garbage collection is paused, as it would traverse the many decoded objects."""

Fill = Callable[[Any], Any]


def read_strictly(router: APIRouter) -> APIRouter:
    """Make routes of `router` without their own route class use `JsonRoute`; return the router."""
    for route in router.routes:
        if type(route) is APIRoute:
            route.__class__ = JsonRoute
        elif isinstance(inside := getattr(route, "original_router", None), APIRouter):
            read_strictly(inside)
    return router


class JsonRoute(APIRoute):
    """A route whose JSON body is decoded by `JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, called with a `JsonRequest`."""
        handle = super().get_route_handler()
        fill = _filling(self.dependant, embedded=self._embed_body_fields)

        async def handler(request: Request) -> Response:
            with contextlib.ExitStack() as stack:
                strict = JsonRequest(request.scope, request.receive, fill, stack)
                try:
                    return await handle(strict)
                finally:
                    strict.forget()

        return handler


class JsonRequest(FormRequest):
    """A request whose JSON and form contain only storable values."""

    def __init__(self, scope: Scope, receive: Receive, fill: Fill, stack: contextlib.ExitStack) -> None:
        """`stack` is closed after the response."""
        super().__init__(scope, receive)
        self._fill = fill
        self._stack = stack

    async def json(self) -> Any:
        """Return the decoded body; raises JSONDecodeError, or HTTPException for values over a limit or unstorable."""
        if not hasattr(self, "_json"):
            data = await self.body()
            limits = resources_of(self).settings.limits

            def read() -> Any:
                value = decode(data, limits, text_kib=limits.text_kib)
                _check_lists(value, limits.names)
                return self._fill(value)

            if len(data) >= MANY_OBJECTS:
                self._stack.enter_context(pause_gc())
            try:
                self._json = read() if len(data) < SLICE_SIZE else await off_loop(read)
            except InvokeCloneError as error:  # FastAPI would answer 400 without the reason
                raise HTTPException(error.status, str(error)) from error
        return self._json

    def forget(self) -> None:
        """Release the decoded body, so that garbage collection need not traverse its objects."""
        self._json = None


def _check_lists(value: Any, limit: int) -> None:
    """Raise Unprocessable if a top-level list has more names or ids than an SQL statement takes."""
    parts = {"the body": value} if isinstance(value, list) else value if isinstance(value, dict) else {}
    for name, part in parts.items():
        if isinstance(part, list) and len(part) > limit:
            raise Unprocessable(f"{name[:100]} has {len(part)} entries, more than {limit} (setting limits.names)")


# Null for fields with a default


def _filling(dependant: Dependant, *, embedded: bool) -> Fill:
    """Return a function that removes those nulls from a route's body that stand for a default."""
    fields = {field.alias: field.field_info for field in dependant.body_params}
    if embedded:
        return _of_fields(fields, params=True) or _identity
    return next((_of_annotation(field.annotation) for field in fields.values()), None) or _identity


def _identity(value: Any) -> Any:
    return value


def _of_fields(
    fields: dict[str, FieldInfo], ancestors: frozenset[type] = frozenset(), *, params: bool = False
) -> Fill | None:
    """Return a function that removes nulls from an object; for `params` of a route, null always means the default."""
    optional = [
        name
        for name, field in fields.items()
        if not field.is_required() and (params or not takes_none(field.annotation))
    ]
    nested_fills = {
        name: field_fill
        for name, field in fields.items()
        if (field_fill := _of_annotation(field.annotation, ancestors))
    }
    if not optional and not nested_fills:
        return None

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            for name in optional:
                if name in value and value[name] is None:
                    del value[name]
            for name, fill_inside in nested_fills.items():
                if name in value:
                    value[name] = fill_inside(value[name])
        return value

    return fill


def _of_annotation(annotation: Any, ancestors: frozenset[type] = frozenset()) -> Fill | None:
    """Return a function that removes nulls from a model, an optional model or a list of models; None if not needed."""
    if is_union(annotation):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _of_annotation(members[0], ancestors) if len(members) == 1 else None
    if get_origin(annotation) is list:
        fill = _of_annotation(get_args(annotation)[0], ancestors)
        return None if fill is None else lambda value: _each(value, fill)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in ancestors:
        return _of_fields(_by_name(annotation.model_fields.items()), ancestors | {annotation})
    return None


def _by_name(fields: Iterable[tuple[str, FieldInfo]]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in fields}


def _each(value: Any, fill: Fill) -> Any:
    return [fill(item) for item in value] if isinstance(value, list) else value
