"""Image events: deletions, for the server itself, and progress of zip files."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event


class ImagesDeletedEvent(Event):
    """Images or videos were deleted: cached results with them are invalid."""

    name: ClassVar[str] = "images_deleted"
    audience: ClassVar[Audience] = "internal"

    image_names: list[str]


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
