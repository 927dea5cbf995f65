"""Response schemas of download jobs."""

from enum import StrEnum
from pathlib import Path

from pydantic import AnyHttpUrl, BaseModel, Field, field_serializer


class DownloadJobStatus(StrEnum):
    """Status of a download."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    ERROR = "error"


ENDED = frozenset({DownloadJobStatus.COMPLETED, DownloadJobStatus.CANCELLED, DownloadJobStatus.ERROR})


def hide_token(_token: str | None) -> str | None:
    """Return None in place of an access token, so that responses never contain it."""
    return None


class DownloadJob(BaseModel):
    """The download of one file. The access token is accepted but never returned."""

    id: int = Field(default=-1, description="Id of the job")
    dest: Path = Field(description="File to write, or folder to write the file to")
    download_path: Path | None = Field(default=None, description="Path of the file, once its name is known")
    status: DownloadJobStatus = Field(default=DownloadJobStatus.WAITING, description="Status of the job")
    bytes: int = Field(default=0, description="Bytes downloaded so far")
    total_bytes: int = Field(default=0, description="Size of the file in bytes; 0 while unknown")
    error_type: str | None = Field(default=None, description="Type of the error that ended the job")
    error: str | None = Field(default=None, description="Message of the error that ended the job")
    source: AnyHttpUrl = Field(description="URL of the file")
    access_token: str | None = Field(default=None, description="Bearer token for the URL")
    priority: int = Field(default=10, description="Priority; lower values are downloaded first")
    job_started: str | None = Field(default=None, description="Time when the job started")
    job_ended: str | None = Field(default=None, description="Time when the job ended")
    content_type: str | None = Field(default=None, description="Content type sent by the server")
    canonical_url: str | None = Field(default=None, description="URL that is requested")
    etag: str | None = Field(default=None, description="ETag sent by the server")
    last_modified: str | None = Field(default=None, description="Last-Modified date sent by the server")
    final_url: str | None = Field(default=None, description="URL after redirects, without its query")
    expected_total_bytes: int | None = Field(default=None, description="Size in bytes announced by the source")
    resume_required: bool = Field(
        default=False, description="Whether the download can only continue from the beginning"
    )
    resume_message: str | None = Field(default=None, description="Why the download restarted from the beginning")
    resume_from_scratch: bool = Field(default=False, description="Whether the download restarted from the beginning")

    _no_token = field_serializer("access_token")(hide_token)

    @property
    def ended(self) -> bool:
        """Whether the job is completed, cancelled or failed."""
        return self.status in ENDED
