"""Errors of models."""

from invokeclone.kit.errors import BadRequest, Conflict, NotFound


class UnknownModelException(NotFound):
    """No model is registered under this key, hash or name."""


class ModelImageNotFound(NotFound):
    """The model has no image."""


class DuplicateModelException(Conflict):
    """Another record has the same path or key."""


class ModelBusy(Conflict):
    """Another operation on the same model is in progress."""


class InvalidModelRecord(Conflict):
    """A record is not valid for its type, format and base, or there is no record class with these."""


class InvalidModel(BadRequest):
    """The file or folder is not a model that can be registered; the message gives the reason."""


class RefusedModel(InvalidModel):
    """The files are intact, but the request, the settings or their location do not allow the registration."""


class UnidentifiedModel(RefusedModel):
    """The files are intact, but of no known kind, or not of the requested one."""


class InstallCancelled(Conflict):
    """The job was cancelled while it ran. Raised and handled inside the installer only."""
