"""Errors of fonts and suggestions."""

from invokeclone.kit.errors import BadRequest, InvokeCloneError, NotFound, Unavailable, Unprocessable


class NotAFont(BadRequest):
    """The path does not name a font file: wrong file type, or outside the folder."""


class FontNotFound(NotFound):
    """The font file does not exist."""


class WrongModel(Unprocessable):
    """The model is not of the required type."""


class NoWorker(Unavailable):
    """No worker is available to run the model."""


class SuggestionFailed(InvokeCloneError):
    """Running the model failed."""
