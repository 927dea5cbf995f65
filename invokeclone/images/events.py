"""What images tell: of deletions to the rest of the application, of zip files to whoever waits for them."""

from typing import ClassVar

from invokeclone.kit.events import Audience, Event


class ImagesDeletedEvent(Event):
    """Images or videos are gone: results that name them must not be used again."""

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
    """A zip file of images is being made."""

    name: ClassVar[str] = "bulk_download_started"


class BulkDownloadCompleteEvent(_BulkDownloadEvent):
    """A zip file of images can be fetched, once."""

    name: ClassVar[str] = "bulk_download_complete"


class BulkDownloadErrorEvent(_BulkDownloadEvent):
    """A zip file of images was not made."""

    name: ClassVar[str] = "bulk_download_error"

    error: str
