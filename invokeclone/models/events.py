"""What is told of models: installations, and the loads that workers do."""

from typing import ClassVar

from invokeclone.graph.taxonomy import SubModelType
from invokeclone.kit.events import Audience, Event
from invokeclone.models.jobs import ModelSource
from invokeclone.models.union import AnyModelConfig


class ModelLoadStartedEvent(Event):
    """A node began to load a model."""

    name: ClassVar[str] = "model_load_started"
    audience: ClassVar[Audience] = "owner"

    config: AnyModelConfig
    submodel_type: SubModelType | None = None
    user_id: str = "system"


class ModelLoadCompleteEvent(Event):
    """A model, or a part of it, is loaded."""

    name: ClassVar[str] = "model_load_complete"
    audience: ClassVar[Audience] = "owner"

    config: AnyModelConfig
    submodel_type: SubModelType | None = None
    user_id: str = "system"


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


class ModelsChangedEvent(Event):
    """Records were changed or deleted: what workers have loaded by them must not be used again."""

    name: ClassVar[str] = "models_changed"
    audience: ClassVar[Audience] = "internal"

    keys: list[str]
