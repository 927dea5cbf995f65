"""Errors of downloads; the class name becomes the job's `error_type`."""

from invokeclone.kit.errors import BadRequest, Conflict, InvokeCloneError, NotFound


class UnknownDownload(NotFound):
    """No download has this id."""


class DestinationRefused(BadRequest):
    """The destination is not allowed."""


class DestinationTaken(Conflict):
    """The file exists already, or another download is writing it."""


class AddressRefused(BadRequest):
    """The URL is not allowed: a private or local address, or not HTTP(S)."""


class DownloadFailed(BadRequest):
    """The file cannot be downloaded; the message gives the reason."""


class AccessDenied(DownloadFailed):
    """The server requires an access token, or rejects the one it got."""


class NotAModelFile(DownloadFailed):
    """The server sent a web page instead of a file."""


class ChecksumMismatch(DownloadFailed):
    """The checksum or size of the file differs from what its source announced."""


class DiskFull(DownloadFailed):
    """There is not enough disk space for the file."""


class TransientError(InvokeCloneError):
    """A temporary failure that is worth retrying. Raised and handled inside `downloads` only."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        """Set the message and, if the server gave one, the delay in seconds before the next attempt."""
        super().__init__(text)
        self.retry_after = retry_after
