"""Error responses for failures of disk and database: 507, 503 or 400; the log has the file and the reason."""

import sqlite3

from fastapi import FastAPI, Request
from sqlalchemy.exc import DBAPIError
from starlette.responses import Response

from invokeclone.kit import log
from invokeclone.kit.errors import InvokeCloneError
from invokeclone.kit.files.storage_errors import to_storage_error
from invokeclone.server.http import errors

_log = log.get("server")


async def _file(request: Request, error: Exception) -> Response:
    cause = to_storage_error(error)
    if cause is None:
        raise error  # a bug: handled by the generic handler
    return _answer(request, error, cause)


async def _database(request: Request, error: Exception) -> Response:
    cause = to_storage_error(error)
    if cause is None:
        _log.error("the database refused a statement", exc_info=error)
        return errors.answer(500, "the database refused a statement; see the server's log")
    return _answer(request, error, cause)


def _answer(request: Request, error: Exception, cause: InvokeCloneError) -> Response:
    _log.warning("%s %s: %s", request.method, request.url.path, error)
    return errors.answer(cause.status, str(cause), cause.headers)


def install(app: FastAPI) -> None:
    """Register the handlers for storage errors."""
    app.add_exception_handler(OSError, _file)
    app.add_exception_handler(DBAPIError, _database)
    app.add_exception_handler(sqlite3.Error, _database)
