"""What can go wrong with a download, each with its status; the class's name is the job's `error_type`."""

from invokeclone.kit.errors import BadRequest, Conflict, InvokeCloneError, NotFound


class UnknownDownload(NotFound):
    """There is no download with this number (any more)."""


class DestinationRefused(BadRequest):
    """The file may not be written there."""


class DestinationTaken(Conflict):
    """There is a file already, or another download is writing it."""


class AddressRefused(BadRequest):
    """The address is none that this server may ask: private, of this machine, or not of the web."""


class DownloadFailed(BadRequest):
    """The file cannot be had; the text says why."""


class AccessDenied(DownloadFailed):
    """The other side wants a token, or a better one."""


class NotAModelFile(DownloadFailed):
    """A web page came instead of a file."""


class ChecksumMismatch(DownloadFailed):
    """The file has another checksum, or another size, than its source says."""


class DiskFull(DownloadFailed):
    """The file would not fit on the disk."""


class TransientError(InvokeCloneError):
    """Something passing went wrong; `after` seconds from now it may work. Raised inside the service only."""

    def __init__(self, text: str, retry_after: float | None = None) -> None:
        """Say what went wrong, and when the other side wants to be asked again."""
        super().__init__(text)
        self.retry_after = retry_after
