"""Download jobs as the wire knows them. Nothing is downloaded yet; install jobs carry empty lists of these."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AnyHttpUrl, BaseModel, Field


class DownloadJobStatus(StrEnum):
    """How far a download is."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    ERROR = "error"


class DownloadJob(BaseModel):
    """One file on its way from the network."""

    id: int = -1
    dest: Path
    download_path: Path | None = None
    status: DownloadJobStatus = DownloadJobStatus.WAITING
    bytes: int = 0
    total_bytes: int = 0
    error_type: str | None = None
    error: str | None = None
    source: AnyHttpUrl
    access_token: str | None = None
    priority: int = 10
    job_started: str | None = None
    job_ended: str | None = None
    content_type: str | None = None
    canonical_url: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    final_url: str | None = None
    expected_total_bytes: int | None = None
    resume_required: bool = False
    resume_message: str | None = None
    resume_from_scratch: bool = False


class RemoteModelFile(BaseModel):
    """A file that a model's source offers."""

    url: AnyHttpUrl
    path: Path
    size: int | None = 0
    sha256: str | None = None


class BaseMetadata(BaseModel):
    """What is known of a source."""

    name: str
    type: Literal["basemetadata"] = "basemetadata"


class HuggingFaceMetadata(BaseModel):
    """What Hugging Face says of a repository."""

    name: str
    files: list[RemoteModelFile] = []
    type: Literal["huggingface"] = "huggingface"
    id: str
    api_response: str | None = None
    is_diffusers: bool = False
    ckpt_urls: list[AnyHttpUrl] | None = None


AnyMetadata = Annotated[BaseMetadata | HuggingFaceMetadata, Field(discriminator="type")]
