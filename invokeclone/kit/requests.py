"""The FastAPI application with its services, and dependencies that give requests access to them. Depends on FastAPI.

`Write` closes with the endpoint function (`scope="function"`), so a COMMIT that fails is an error response and not a
200.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError, WrapValidator
from python_multipart.multipart import parse_options_header
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.types import Message, Receive

from invokeclone.kit.json_text import NotStorable, check_text
from invokeclone.kit.resources import Resources
from invokeclone.kit.services import Part, Services
from invokeclone.kit.sql.database import Database
from invokeclone.kit.workers import Workers


class Application(FastAPI):
    """A FastAPI application with the long-lived services that its requests use."""

    def __init__(self, **options: Any) -> None:
        """Create an application without services; `options` are FastAPI's."""
        super().__init__(**options)
        self.services = Services()


def services_of(connection: HTTPConnection) -> Services:
    """Return the services of the application that serves a request or a WebSocket."""
    return cast("Application", connection.app).services


def service(kind: type[Part]) -> Callable[[HTTPConnection], Awaitable[Part]]:
    """Return a dependency that provides the application's service of type `kind`."""

    async def part(connection: HTTPConnection) -> Part:
        return services_of(connection).get(kind)

    return part


def resources_of(connection: HTTPConnection) -> Resources:
    """Return settings, database and events.

    Dependencies that every request has call this directly: a nested dependency costs as much as a small read.
    """
    return services_of(connection).get(Resources)


async def _database(connection: HTTPConnection) -> Database:
    return resources_of(connection).database


async def _read(connection: HTTPConnection) -> AsyncIterator[AsyncConnection]:
    async with resources_of(connection).database.read() as database_connection:
        yield database_connection


async def _write(connection: HTTPConnection) -> AsyncIterator[AsyncConnection]:
    async with resources_of(connection).database.write() as database_connection:
        yield database_connection


Needs = Annotated[Resources, Depends(service(Resources))]
NeedsWorkers = Annotated[Workers, Depends(service(Workers))]


async def _require_workers(workers: NeedsWorkers) -> None:
    workers.require_running()


RUNNING_WORKERS = Depends(_require_workers)
"""A dependency of routes whose response needs a worker: 503 with `Retry-After` while none is running."""

Reads = Annotated[Database, Depends(_database)]
"""The database for prepared reads, each in its own snapshot; reads that must be consistent with each other need a
`Read`."""

Read = Annotated[AsyncConnection, Depends(_read, scope="function")]
Write = Annotated[AsyncConnection, Depends(_write, scope="function")]

UTF_8 = ("utf-8", "utf8", "us-ascii")
"""Accepted charsets of forms."""

LATER = WrapValidator(lambda value, _validate: value)
"""Beside `Body()`: publishes the type in the schema but skips validation, so that it can run off the event loop."""


class WatchedReceive:
    """A request's `receive` that notes when the client leaves."""

    def __init__(self, receive: Receive) -> None:
        """Pass on what `receive` returns."""
        self._receive = receive
        self.has_left = False

    async def __call__(self) -> Message:
        """Return the next message."""
        message = await self._receive()
        self.has_left = self.has_left or message["type"] == "http.disconnect"
        return message


class BodyOverLimit(Exception):
    """The body turned out longer than allowed while it was read."""


class LimitedBody:
    """A request's `receive`, for at most so many bytes of its body."""

    def __init__(self, receive: Receive, limit: int) -> None:
        """Read at most `limit` bytes from `receive`."""
        self._receive = receive
        self._left = limit

    @property
    def is_over(self) -> bool:
        """Whether more than the limit has come."""
        return self._left < 0

    async def __call__(self) -> Message:
        """Return the next message. Raises BodyOverLimit."""
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self.is_over:
            raise BodyOverLimit
        return message


class FormRequest(Request):
    """A request whose form contains only storable text: no NUL characters and no lone surrogates."""

    async def _get_form(self, **limits: Any) -> FormData:
        """Read the form, as `form` does. Raises HTTPException, whose detail FastAPI passes on."""
        _, options = parse_options_header(self.headers.get("content-type"))
        charset = options.get(b"charset", b"utf-8").decode("latin-1")
        if charset.lower() not in UTF_8:  # some of Python's codecs produce lone surrogates, or fail
            raise HTTPException(415, f"forms in the charset {charset[:40]!r} are not accepted: send UTF-8")
        form = await super()._get_form(**limits)
        try:
            for name, value in form.multi_items():
                check_text(name, "the name of a form's field")
                check_text(
                    value if isinstance(value, str) else value.filename or "", f"the form's field {name[:100]!r}"
                )
        except NotStorable as error:
            await form.close()
            raise HTTPException(error.status, str(error)) from error
        return form


@contextlib.contextmanager
def validating(*location: str) -> Iterator[None]:
    """Raise a ValidationError of what came with `LATER` as a RequestValidationError, with `location` in the body as FastAPI has it."""
    try:
        yield
    except ValidationError as error:
        problems = [
            {**problem, "loc": ("body", *location, *problem["loc"])} for problem in error.errors(include_url=False)
        ]
        raise RequestValidationError(problems) from error
