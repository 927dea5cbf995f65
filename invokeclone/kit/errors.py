"""The tree of errors that reach a client; it knows statuses and refuses to know who renders them.

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

A room subclasses the one that fits (`class BoardNotFound(NotFound)`) and raises it in its store or service.
"""

from typing import ClassVar


class InvokeCloneError(Exception):
    """An error with an HTTP status; its text is what the client reads in `detail`."""

    status: ClassVar[int] = 500
    headers: ClassVar[dict[str, str]] = {}


class BadRequest(InvokeCloneError):
    """The request can be read but asks for something that makes no sense."""

    status = 400


class Unauthorized(InvokeCloneError):
    """Credentials are missing or not valid."""

    status = 401
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": "Bearer"}


class Forbidden(InvokeCloneError):
    """The user may not do this."""

    status = 403


class NotFound(InvokeCloneError):
    """The named thing does not exist."""

    status = 404


class Conflict(InvokeCloneError):
    """The state of the thing does not allow this now."""

    status = 409


class TooLarge(InvokeCloneError):
    """The body, or what it unpacks to, is over a limit."""

    status = 413


class UnsupportedMedia(InvokeCloneError):
    """The content is not of a kind that is accepted here."""

    status = 415


class RangeInvalid(InvokeCloneError):
    """The Range header cannot be satisfied."""

    status = 416


class Unprocessable(InvokeCloneError):
    """The request has the right form and a value that is not acceptable."""

    status = 422


class FailedDependency(InvokeCloneError):
    """Something that the request depends on is missing."""

    status = 424


class TooMany(InvokeCloneError):
    """Too many requests of this kind at once."""

    status = 429


class Unavailable(InvokeCloneError):
    """The part that could answer is not there at the moment."""

    status = 503


class InsufficientStorage(InvokeCloneError):
    """What should be stored cannot be: no room, or no permission."""

    status = 507
