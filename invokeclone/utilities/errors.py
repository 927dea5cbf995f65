"""What can go wrong with fonts and suggestions."""

from invokeclone.kit.errors import BadRequest, InvokeCloneError, NotFound, Unavailable, Unprocessable


class NotAFont(BadRequest):
    """The address names no font file: another kind of file, or a place outside the folder."""


class FontNotFound(NotFound):
    """There is no such font file."""


class WrongModel(Unprocessable):
    """The model is of another type than this needs."""


class NoWorker(Unavailable):
    """No worker is there that could run the model."""


class SuggestionFailed(InvokeCloneError):
    """The model could not be run."""
