"""Errors of operations across the link: a node receives the same class and text as from a local operation."""

import errno
from collections.abc import Iterator
from typing import Any, NoReturn

from invokeclone.graph.context import CanceledException
from invokeclone.kit import log
from invokeclone.kit.errors import Conflict, InvokeCloneError, NotFound
from invokeclone.queue.calls.chain import CallFailed

_log = log.get("worker.backend")
_OTHERS: dict[str, type[Exception]] = {"CallFailed": CallFailed, "CanceledException": CanceledException}
_HTTP_NO_SPACE = 507


class OperationFailed(InvokeCloneError):
    """The server could not run an operation, because of an error that its log has."""


class NotOnThisWorker(Conflict):
    """Something that only the server's machine has was requested on a worker of another machine."""


class ModelNotFetched(NotFound):
    """The files of a model cannot be had on this worker's machine; the message gives the reason."""


def encode(error: Exception, operation: str) -> dict[str, Any]:
    """Return an error as JSON; the text of unexpected errors is only logged."""
    if isinstance(error, (InvokeCloneError, *_OTHERS.values())):
        return {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, OSError):
        return {"type": "OSError", "message": str(error), "errno": error.errno}
    _log.error("the operation %s of a joined worker failed", operation, exc_info=error)
    return {"type": "OperationFailed", "message": f"the server failed to run {operation}; its log has the error"}


def raise_decoded(error: dict[str, Any]) -> NoReturn:
    """Raise the error that `encode` returned."""
    name, message = str(error.get("type")), str(error.get("message"))
    if name == "OSError":
        raise OSError(error.get("errno") or errno.EIO, message)
    raise _with_text(_OTHERS.get(name) or _find(name), message)


def raise_status(status: int, message: str) -> NoReturn:
    """Raise the error of an HTTP response to a transfer."""
    if status == _HTTP_NO_SPACE:
        raise OSError(errno.ENOSPC, message)
    general = InvokeCloneError.__module__
    kinds = (kind for kind in InvokeCloneError.__subclasses__() if (kind.__module__, kind.status) == (general, status))
    raise _with_text(next(kinds, OperationFailed), message)


def _with_text(kind: type[Exception], message: str) -> Exception:
    """Return an error of a class whose constructor takes other arguments than its text."""
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    return error


def _find(name: str) -> type[Exception]:
    return next((kind for kind in _subclasses(InvokeCloneError) if kind.__name__ == name), OperationFailed)


def _subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
