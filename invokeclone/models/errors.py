"""What can go wrong with a model, each with its status; it knows no file and no row."""

from invokeclone.kit.errors import BadRequest, Conflict, NotFound


class UnknownModelException(NotFound):
    """No model is registered under this key, hash or name."""


class ModelImageNotFound(NotFound):
    """The model has no picture."""


class DuplicateModelException(Conflict):
    """Another record has this path or key already."""


class ModelBusy(Conflict):
    """Another operation on the same model is going on."""


class InvalidModelRecord(Conflict):
    """The record that would result is none that its type, format and base allow."""


class InvalidModel(BadRequest):
    """The file or folder is no model that can be registered; the text says what is wrong with it."""


class InstallCancelled(Conflict):
    """The job was cancelled while it ran; raised inside the installer only."""
