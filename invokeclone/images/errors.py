"""Errors of requests about images and videos; the statuses are those of InvokeAI's API."""

from typing import ClassVar

from invokeclone.kit.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    InvokeCloneError,
    NotFound,
    RangeInvalid,
    TooLarge,
    TooMany,
    Unprocessable,
    UnsupportedMedia,
)


class ImageNotFound(NotFound):
    """No image has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no image is named {name!r}")


class ImageNotUpdated(BadRequest):
    """The image to change does not exist; InvokeAI's API has status 400 for this."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no image is named {name!r}, so nothing was changed")


class VideoNotFound(NotFound):
    """No video has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no video is named {name!r}")


class VideoNotUpdated(BadRequest):
    """The video to change does not exist; InvokeAI's API has status 400 for this."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no video is named {name!r}, so nothing was changed")


class BoardNotFound(NotFound):
    """No board has this id."""

    def __init__(self, board_id: str) -> None:
        super().__init__(f"no board has the id {board_id!r}")


class ImageNotYours(Forbidden):
    """The image or video belongs to another user, and is not on a board that allows the operation."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} belongs to another user")


class NotYourBoard(Forbidden):
    """The board belongs to another user and does not allow the operation."""

    def __init__(self, board_id: str) -> None:
        super().__init__(f"the board {board_id!r} belongs to another user")


class NotAnImage(UnsupportedMedia):
    """The upload is not a readable image."""


class TooManyPixels(TooLarge):
    """The image declares more pixels than the limit; it was not decoded."""


class InvalidSize(BadRequest):
    """`resize_to` is not an object with a width and a height within the limits."""


class NothingVisible(Unprocessable):
    """The image should be cropped to its visible part, but nothing is visible."""


class NotSupported(InvokeCloneError):
    """The route is part of InvokeAI's API but not supported."""

    status = 501


class NotAVideo(UnsupportedMedia):
    """The upload is not an MP4 with H.264 whose first frame can be decoded."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a supported video: {reason}")


class VideoNotDecoded(NotAVideo):
    """The decoder took too long or was killed, which may be due to the machine, too: a later attempt may succeed."""


class VideoTooLarge(TooLarge):
    """The video is over the size limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the video is over the limit of {limit // 1024**2} MiB (setting limits.video_mib)")


class MetadataTooLarge(TooLarge):
    """The metadata of an upload is over the size limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the metadata is over the limit of {limit // 1024**2} MiB")


class MetadataNotObject(Unprocessable):
    """The metadata of an upload is not a JSON object."""

    def __init__(self) -> None:
        super().__init__("the metadata must be a JSON object")


class FormNotReadable(Unprocessable):
    """The body is not a valid upload form."""


class UploadInterrupted(BadRequest):
    """The client disconnected before the end of its upload."""

    def __init__(self) -> None:
        super().__init__("the upload was interrupted")


class RangeNotSatisfiable(RangeInvalid):
    """The requested range is outside the file, or is not a single range."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range must be a single range within the {size} bytes of the file")
        self.headers = {"Content-Range": f"bytes */{size}"}  # type: ignore[misc]  # for this response only


class TooManyUploads(TooMany):
    """The limit on concurrent video uploads is reached, in total or for this user."""

    headers: ClassVar[dict[str, str]] = {"Retry-After": "5"}

    def __init__(self) -> None:
        super().__init__("too many videos are being uploaded; try again in a moment")


class NothingToDownload(BadRequest):
    """The request names neither images nor a board."""

    def __init__(self) -> None:
        super().__init__("set image_names or board_id")


class TooManyDownloads(TooMany):
    """The limit on pending zip files is reached."""

    headers: ClassVar[dict[str, str]] = {"Retry-After": "5"}

    def __init__(self) -> None:
        super().__init__("too many downloads are being prepared; try again in a moment")


class DownloadNotFound(NotFound):
    """No zip file has this name, or it was downloaded already, or it is not ready."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no download is named {name!r}; each can be downloaded once")


class NotYourDownload(Forbidden):
    """The zip file belongs to another user."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the download {name!r} belongs to another user")


class ImagesMoving(Conflict):
    """Image files are being moved; operations on images have to wait."""

    def __init__(self) -> None:
        super().__init__("images are being moved to other folders; try again when the move is done")


class AlreadyMoving(Conflict):
    """A move is running already, or the server is shutting down."""

    def __init__(self) -> None:
        super().__init__("images are being moved already")


class QueueNotIdle(Conflict):
    """Queue items are pending or running, which may read and write images."""

    def __init__(self) -> None:
        super().__init__("images can be moved only while no queue item is pending or running")
