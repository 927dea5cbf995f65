"""Events of installations."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event
from invokeclone.models.identify.union import AnyModelConfig
from invokeclone.models.install.jobs import ModelSource


class ModelInstallDownloadStartedEvent(Event):
    """The downloads of an installation began."""

    name: ClassVar[str] = "model_install_download_started"
    audience: ClassVar[Audience] = "admin"

    id: int
    source: ModelSource
    local_path: str
    bytes: int
    total_bytes: int
    parts: list[dict[str, int | str]]


class ModelInstallDownloadProgressEvent(Event):
    """The downloads of an installation went on."""

    name: ClassVar[str] = "model_install_download_progress"
    audience: ClassVar[Audience] = "admin"

    id: int
    source: ModelSource
    local_path: str
    bytes: int
    total_bytes: int
    parts: list[dict[str, int | str]]


class ModelInstallDownloadsCompleteEvent(Event):
    """Everything that an installation needs is here."""

    name: ClassVar[str] = "model_install_downloads_complete"
    audience: ClassVar[Audience] = "admin"

    id: int
    source: ModelSource


class ModelInstallStartedEvent(Event):
    """An installation began its work on the files."""

    name: ClassVar[str] = "model_install_started"
    audience: ClassVar[Audience] = "admin"

    id: int
    source: ModelSource


class ModelInstallCompleteEvent(Event):
    """A model is registered."""

    name: ClassVar[str] = "model_install_complete"
    audience: ClassVar[Audience] = "admin"

    id: int
    source: ModelSource
    key: str
    total_bytes: int | None
    config: AnyModelConfig


class ModelInstallCancelledEvent(Event):
    """Somebody cancelled an installation."""

    name: ClassVar[str] = "model_install_cancelled"
    audience: ClassVar[Audience] = "admin"

    id: int
    source: ModelSource


class ModelInstallErrorEvent(Event):
    """An installation failed."""

    name: ClassVar[str] = "model_install_error"
    audience: ClassVar[Audience] = "admin"

    id: int
    source: ModelSource
    error_type: str
    error: str
