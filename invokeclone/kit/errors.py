"""The tree of errors that are reported to clients, each with its HTTP status. `server/http/errors.py` renders them.

    InvokeCloneError          500
    ├── BadRequest            400
    ├── Unauthorized          401
    ├── Forbidden             403
    ├── NotFound              404
    ├── Conflict              409
    ├── TooLarge              413
    ├── UnsupportedMedia      415
    ├── RangeInvalid          416
    ├── Unprocessable         422
    ├── FailedDependency      424
    ├── TooMany               429
    ├── Unavailable           503
    └── InsufficientStorage   507

A package subclasses the one that fits (`class BoardNotFound(NotFound)`) and raises it in its store or service.
"""

from typing import ClassVar


class InvokeCloneError(Exception):
    """An error with an HTTP status; its text becomes `detail` in the response."""

    status: ClassVar[int] = 500
    headers: ClassVar[dict[str, str]] = {}


class BadRequest(InvokeCloneError):
    """The request is well-formed but asks for something impossible."""

    status = 400


class Unauthorized(InvokeCloneError):
    """Credentials are missing or not valid."""

    status = 401
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": "Bearer"}


class Forbidden(InvokeCloneError):
    """The user may not do this."""

    status = 403


class NotFound(InvokeCloneError):
    """The resource does not exist."""

    status = 404


class Conflict(InvokeCloneError):
    """The state of the resource does not allow this now."""

    status = 409


class TooLarge(InvokeCloneError):
    """The body, or its decompressed content, is over a limit."""

    status = 413


class UnsupportedMedia(InvokeCloneError):
    """The media type is not accepted."""

    status = 415


class RangeInvalid(InvokeCloneError):
    """The Range header cannot be satisfied."""

    status = 416


class Unprocessable(InvokeCloneError):
    """The request is well-formed but contains an invalid value."""

    status = 422


class FailedDependency(InvokeCloneError):
    """A dependency of the request is missing."""

    status = 424


class TooMany(InvokeCloneError):
    """Too many requests of this kind at once."""

    status = 429


class Unavailable(InvokeCloneError):
    """The component that handles the request is not available at the moment."""

    status = 503
    headers: ClassVar[dict[str, str]] = {"Retry-After": "10"}


class InsufficientStorage(InvokeCloneError):
    """The data cannot be stored: no space, or no permission."""

    status = 507
