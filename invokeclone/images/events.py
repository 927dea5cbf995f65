"""Image events: deletions and moves, for the servers only, and progress of zip files."""

from typing import ClassVar, Literal

from invokeclone.kit.events import Audience, Event


class ImagesDeletedEvent(Event):
    """Images or videos were deleted: cached results with them are invalid."""

    name: ClassVar[str] = "images_deleted"
    audience: ClassVar[Audience] = "internal"

    image_names: list[str]


class ImageMoveChangedEvent(Event):
    """A server on a shared database begins or ends to move images; without an operation, that it has ended."""

    name: ClassVar[str] = "image_move_changed"
    audience: ClassVar[Audience] = "internal"

    server_id: str
    operation: Literal["move_all", "recovery"] | None
    job_id: int | None
    last_error: str | None


class _BulkDownloadEvent(Event):
    audience: ClassVar[Audience] = "bulk_download"

    bulk_download_id: str
    bulk_download_item_id: str
    bulk_download_item_name: str
    user_id: str = "system"


class BulkDownloadStartedEvent(_BulkDownloadEvent):
    """A zip file of images is being created."""

    name: ClassVar[str] = "bulk_download_started"


class BulkDownloadCompleteEvent(_BulkDownloadEvent):
    """A zip file of images is ready for its only download."""

    name: ClassVar[str] = "bulk_download_complete"


class BulkDownloadErrorEvent(_BulkDownloadEvent):
    """Creating a zip file of images failed."""

    name: ClassVar[str] = "bulk_download_error"

    error: str
