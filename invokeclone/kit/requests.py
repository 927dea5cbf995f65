"""FastAPI dependencies that hand a request its connection and resources; the only part of kit that knows the web.

`Write` closes with the endpoint function (`scope="function"`), so a COMMIT that fails is an error answer and not a 200.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError, WrapValidator
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import HTTPConnection

from invokeclone.kit.resources import Resources


async def resources(connection: HTTPConnection) -> Resources:
    """Return what `create_app` put on the application, for a request or a WebSocket."""
    return cast("Resources", connection.app.state.resources)


Needs = Annotated[Resources, Depends(resources)]


async def _read(needs: Needs) -> AsyncIterator[AsyncConnection]:
    async with needs.database.read() as connection:
        yield connection


async def _write(needs: Needs) -> AsyncIterator[AsyncConnection]:
    async with needs.database.write() as connection:
        yield connection


Read = Annotated[AsyncConnection, Depends(_read, scope="function")]
Write = Annotated[AsyncConnection, Depends(_write, scope="function")]

LATER = WrapValidator(lambda value, _validate: value)
"""Beside `Body()`: the part of the body is published as its type and arrives as it was sent, to be validated off the event loop."""

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], value: Any, *place: str) -> Model:
    """Validate what came with `LATER`. Raises RequestValidationError, which tells of `place` in the body as FastAPI would."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = [
            {**problem, "loc": ("body", *place, *problem["loc"])} for problem in error.errors(include_url=False)
        ]
        raise RequestValidationError(problems) from error
