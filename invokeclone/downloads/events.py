"""What is told of downloads."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event


class DownloadStartedEvent(Event):
    """A download began."""

    name: ClassVar[str] = "download_started"
    audience: ClassVar[Audience] = "admin"

    source: str
    download_path: str


class DownloadProgressEvent(Event):
    """A download went on."""

    name: ClassVar[str] = "download_progress"
    audience: ClassVar[Audience] = "admin"

    source: str
    download_path: str
    current_bytes: int
    total_bytes: int


class DownloadCompleteEvent(Event):
    """A file is here, whole."""

    name: ClassVar[str] = "download_complete"
    audience: ClassVar[Audience] = "admin"

    source: str
    download_path: str
    total_bytes: int


class DownloadCancelledEvent(Event):
    """Somebody cancelled a download."""

    name: ClassVar[str] = "download_cancelled"
    audience: ClassVar[Audience] = "admin"

    source: str


class DownloadPausedEvent(Event):
    """Somebody paused a download."""

    name: ClassVar[str] = "download_paused"
    audience: ClassVar[Audience] = "admin"

    source: str


class DownloadErrorEvent(Event):
    """A download failed."""

    name: ClassVar[str] = "download_error"
    audience: ClassVar[Audience] = "admin"

    source: str
    error_type: str
    error: str
