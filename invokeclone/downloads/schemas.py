"""Download jobs as the wire knows them."""

from enum import StrEnum
from pathlib import Path

from pydantic import AnyHttpUrl, BaseModel, Field, field_serializer


class DownloadJobStatus(StrEnum):
    """How far a download is."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    ERROR = "error"


ENDED = frozenset({DownloadJobStatus.COMPLETED, DownloadJobStatus.CANCELLED, DownloadJobStatus.ERROR})


def hide_token(_token: str | None) -> str | None:
    """Return what is told of an access token: nothing, whoever asks."""
    return None


class DownloadJob(BaseModel):
    """One file on its way from the network. The token is taken and never told."""

    id: int = Field(default=-1, description="Number of the job")
    dest: Path = Field(description="File to write, or folder to write it to")
    download_path: Path | None = Field(default=None, description="The file, once its name is known")
    status: DownloadJobStatus = Field(default=DownloadJobStatus.WAITING, description="How far it is")
    bytes: int = Field(default=0, description="Bytes that are here")
    total_bytes: int = Field(default=0, description="Bytes in all; 0 while that is not known")
    error_type: str | None = Field(default=None, description="Kind of error that ended it")
    error: str | None = Field(default=None, description="Text of that error")
    source: AnyHttpUrl = Field(description="Web address of the file")
    access_token: str | None = Field(default=None, description="Bearer token for the address")
    priority: int = Field(default=10, description="Lower ones come first")
    job_started: str | None = Field(default=None, description="When it began")
    job_ended: str | None = Field(default=None, description="When it ended")
    content_type: str | None = Field(default=None, description="What the other side says it is")
    canonical_url: str | None = Field(default=None, description="Address that is asked")
    etag: str | None = Field(default=None, description="The other side's mark of this state of the file")
    last_modified: str | None = Field(default=None, description="When the other side last changed the file")
    final_url: str | None = Field(default=None, description="Address that it came from, without its query")
    expected_total_bytes: int | None = Field(default=None, description="Bytes that its source says it has")
    resume_required: bool = Field(default=False, description="Whether it can only go on from the beginning")
    resume_message: str | None = Field(default=None, description="Why it began anew")
    resume_from_scratch: bool = Field(default=False, description="Whether it began anew")

    _no_token = field_serializer("access_token")(hide_token)

    @property
    def ended(self) -> bool:
        """Whether it has come to its end, good or bad."""
        return self.status in ENDED
