"""What can be wrong with a request about images; the statuses are those clients know."""

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
    """The image to change is not there; clients know this one as a 400."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no image is named {name!r}, so nothing was changed")


class VideoNotFound(NotFound):
    """No video has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no video is named {name!r}")


class VideoNotUpdated(BadRequest):
    """The video to change is not there; clients know this one as a 400."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no video is named {name!r}, so nothing was changed")


class BoardNotFound(NotFound):
    """No board has this id."""

    def __init__(self, board_id: str) -> None:
        super().__init__(f"no board has the id {board_id!r}")


class ImageNotYours(Forbidden):
    """The image or video is another user's, and on no board that would allow this."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} is another user's")


class NotYourBoard(Forbidden):
    """The board is another user's, who did not allow this."""

    def __init__(self, board_id: str) -> None:
        super().__init__(f"the board {board_id!r} is another user's")


class NotAnImage(UnsupportedMedia):
    """What was sent is not a picture that can be read."""


class TooManyPixels(TooLarge):
    """The picture would unpack to more than is sensible; nothing of it was decoded."""


class InvalidSize(BadRequest):
    """`resize_to` is not an object with a width and a height within the limits."""


class NothingVisible(Unprocessable):
    """The picture is to be cropped to what is visible, and nothing is."""


class NotSupported(InvokeCloneError):
    """The route is in the contract and answers that there is nothing behind it."""

    status = 501


class NotAVideo(UnsupportedMedia):
    """What was sent is not an MP4 with H.264 whose first frame can be decoded."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a video that can be kept: {reason}")


class VideoTooLarge(TooLarge):
    """The video is over the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the video is over the limit of {limit // 1024**2} MiB (setting limits.video_mib)")


class MetadataTooLarge(TooLarge):
    """The metadata that came along is over the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the metadata is over the limit of {limit // 1024**2} MiB")


class MetadataNotObject(Unprocessable):
    """The metadata that came along is not a JSON object."""

    def __init__(self) -> None:
        super().__init__("the metadata must be a JSON object")


class FormNotReadable(Unprocessable):
    """The body is not the form that was asked for."""


class UploadInterrupted(BadRequest):
    """The client went away before the end of its upload."""

    def __init__(self) -> None:
        super().__init__("the upload was cut off")


class RangeNotSatisfiable(RangeInvalid):
    """The range that is asked for is not within the file, or is not one range."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range must be one, of bytes, and within the {size} of the file")
        self.headers = {"Content-Range": f"bytes */{size}"}  # type: ignore[misc]  # of this one answer


class TooManyUploads(TooMany):
    """As many videos are being uploaded as is allowed, in all or by this user."""

    headers: ClassVar[dict[str, str]] = {"Retry-After": "5"}

    def __init__(self) -> None:
        super().__init__("too many videos are being uploaded; try again in a moment")


class NothingToDownload(BadRequest):
    """Neither images nor a board were named."""

    def __init__(self) -> None:
        super().__init__("give image_names or a board_id")


class TooManyDownloads(TooMany):
    """So many zip files are waiting to be made that one more is refused."""

    headers: ClassVar[dict[str, str]] = {"Retry-After": "5"}

    def __init__(self) -> None:
        super().__init__("too many downloads are being made; try again in a moment")


class DownloadNotFound(NotFound):
    """No zip file has this name, or it was fetched already, or it is not ready."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no download is named {name!r}; each can be fetched once")


class NotYourDownload(Forbidden):
    """The zip file was made for another user."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the download {name!r} is another user's")


class ImagesMoving(Conflict):
    """The files of images are being moved, and what would touch them has to wait."""

    def __init__(self) -> None:
        super().__init__("images are being moved to other folders; try again when that is done")


class AlreadyMoving(Conflict):
    """Images are being moved, or the server ends."""

    def __init__(self) -> None:
        super().__init__("images are being moved already")


class QueueNotIdle(Conflict):
    """Items wait or are being run, which may read and write images."""

    def __init__(self) -> None:
        super().__init__("images can be moved only while nothing in the queue waits or is being run")
