"""Events of installations."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event
from invokeclone.models.identify.union import AnyModelConfig
from invokeclone.models.install.jobs import ModelSource


class ModelInstallDownloadStartedEvent(Event):
    """The downloads of an installation started."""

    name: ClassVar[str] = "model_install_download_started"
    audience: ClassVar[Audience] = "admin"

    id: int
    source: ModelSource
    local_path: str
    bytes: int
    total_bytes: int
    parts: list[dict[str, int | str]]


class ModelInstallDownloadProgressEvent(Event):
    """Progress of the downloads of an installation."""

    name: ClassVar[str] = "model_install_download_progress"
    audience: ClassVar[Audience] = "admin"

    id: int
    source: ModelSource
    local_path: str
    bytes: int
    total_bytes: int
    parts: list[dict[str, int | str]]


class ModelInstallDownloadsCompleteEvent(Event):
    """The downloads of an installation are complete."""

    name: ClassVar[str] = "model_install_downloads_complete"
    audience: ClassVar[Audience] = "admin"

    id: int
    source: ModelSource


class ModelInstallStartedEvent(Event):
    """The registration of an installation started."""

    name: ClassVar[str] = "model_install_started"
    audience: ClassVar[Audience] = "admin"

    id: int
    source: ModelSource


class ModelInstallCompleteEvent(Event):
    """A model was installed and registered."""

    name: ClassVar[str] = "model_install_complete"
    audience: ClassVar[Audience] = "admin"

    id: int
    source: ModelSource
    key: str
    total_bytes: int | None
    config: AnyModelConfig


class ModelInstallCancelledEvent(Event):
    """An installation was cancelled."""

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
