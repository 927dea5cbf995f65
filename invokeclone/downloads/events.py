"""Events of downloads."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event


class DownloadStartedEvent(Event):
    """A download started."""

    name: ClassVar[str] = "download_started"
    audience: ClassVar[Audience] = "admin"

    source: str
    download_path: str


class DownloadProgressEvent(Event):
    """Progress of a download."""

    name: ClassVar[str] = "download_progress"
    audience: ClassVar[Audience] = "admin"

    source: str
    download_path: str
    current_bytes: int
    total_bytes: int


class DownloadCompleteEvent(Event):
    """A download is complete."""

    name: ClassVar[str] = "download_complete"
    audience: ClassVar[Audience] = "admin"

    source: str
    download_path: str
    total_bytes: int


class DownloadCancelledEvent(Event):
    """A download was cancelled."""

    name: ClassVar[str] = "download_cancelled"
    audience: ClassVar[Audience] = "admin"

    source: str


class DownloadPausedEvent(Event):
    """A download was paused."""

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
