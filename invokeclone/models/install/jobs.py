"""Schemas of install jobs and model sources, and the parser of source texts."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AnyHttpUrl, BaseModel, Field, ValidationError, field_serializer

from invokeclone.downloads.schemas import DownloadJob, hide_token
from invokeclone.graph.vocabulary.taxonomy import ModelRepoVariant, ModelSourceType
from invokeclone.kit.errors import Conflict
from invokeclone.models.configs.external import PROVIDERS
from invokeclone.models.identify.union import AnyModelConfig
from invokeclone.models.install.sources.metadata import AnyMetadata
from invokeclone.models.records.schemas import ModelRecordChanges


class LocalModelSource(BaseModel, frozen=True):
    """A file or folder on the server."""

    path: str | Path
    inplace: bool | None = False
    type: Literal["local"] = "local"

    def __str__(self) -> str:
        """Return the path."""
        return Path(self.path).as_posix()


class HFModelSource(BaseModel, frozen=True):
    """A Hugging Face repository, or a part of one."""

    repo_id: str
    variant: ModelRepoVariant | None = ModelRepoVariant.FP16
    subfolder: Path | None = None
    access_token: str | None = None
    type: Literal["hf"] = "hf"

    _no_token = field_serializer("access_token")(hide_token)

    def __str__(self) -> str:
        """Return `owner/name[:variant[:subfolder]]`."""
        parts = [self.repo_id, self.variant or "", self.subfolder.as_posix() if self.subfolder else ""]
        return ":".join(parts).rstrip(":")


class URLModelSource(BaseModel, frozen=True):
    """A file on the web."""

    url: AnyHttpUrl
    access_token: str | None = None
    type: Literal["url"] = "url"

    _no_token = field_serializer("access_token")(hide_token)

    def __str__(self) -> str:
        """Return the URL."""
        return str(self.url)


class ExternalModelSource(BaseModel, frozen=True):
    """A model of an external provider."""

    provider_id: str
    provider_model_id: str
    type: Literal["external"] = "external"

    def __str__(self) -> str:
        """Return `external://provider/model`."""
        return f"external://{self.provider_id}/{self.provider_model_id}"


ModelSource = Annotated[
    LocalModelSource | HFModelSource | URLModelSource | ExternalModelSource, Field(discriminator="type")
]

SOURCE_TYPES = {
    "local": ModelSourceType.Path,
    "hf": ModelSourceType.HFRepoID,
    "url": ModelSourceType.Url,
    "external": ModelSourceType.External,
}


class InstallStatus(StrEnum):
    """Status of an install job."""

    WAITING = "waiting"
    DOWNLOADING = "downloading"
    DOWNLOADS_DONE = "downloads_done"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    ERROR = "error"
    CANCELLED = "cancelled"


TERMINAL = frozenset({InstallStatus.COMPLETED, InstallStatus.ERROR, InstallStatus.CANCELLED})


class ModelInstallJob(BaseModel):
    """An installation, kept in memory until it is pruned or the server stops."""

    id: int = Field(description="Id of the job")
    status: InstallStatus = Field(default=InstallStatus.WAITING, description="Status of the job")
    error_reason: str | None = Field(default=None, description="Type of the error that ended the job")
    config_in: ModelRecordChanges = Field(default_factory=ModelRecordChanges, description="Fields set by the user")
    config_out: AnyModelConfig | None = Field(default=None, description="Record of the installed model")
    inplace: bool = Field(default=False, description="Whether to leave the files in their location")
    source: ModelSource = Field(description="Source of the model")
    local_path: Path = Field(description="Path of the files")
    bytes: int = Field(default=0, description="Bytes downloaded so far")
    total_bytes: int = Field(default=0, description="Total size in bytes")
    source_metadata: AnyMetadata | None = Field(default=None, description="Metadata of the source")
    download_parts: Annotated[list[DownloadJob], Field(json_schema_extra={"uniqueItems": True})] = Field(
        default_factory=list, description="Downloads of the job"
    )
    error: str | None = Field(default=None, description="Message of the error that ended the job")
    error_traceback: str | None = Field(default=None, description="Traceback of the error that ended the job")

    @property
    def ended(self) -> bool:
        """Whether the job is completed, cancelled or failed."""
        return self.status in TERMINAL

    @property
    def log_fields(self) -> dict[str, Any]:
        """Structured fields of log lines about the job."""
        return {"action": "install_model", "install_id": self.id}


class UnsupportedSource(Conflict):
    """The text is not a source that models can be installed from."""


_REPO = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<variant>[a-z0-9]*)(?::(?P<subfolder>[^:]+))?)?$")


def parse_source(text: str, *, inplace: bool, access_token: str | None) -> ModelSource:
    """Parse a source: an existing path, `owner/name[:variant[:subfolder]]`, a URL, or `external://provider/model`.

    Checks whether a path exists, so call it in a thread. Raises UnsupportedSource.
    """
    text = text.strip("\"' ")
    provider, separator, model = text.removeprefix("external://").partition("/")
    if text.startswith("external://") and provider and separator and model:
        if provider not in PROVIDERS:
            raise UnsupportedSource(f"unknown provider {provider!r}; supported are {', '.join(PROVIDERS)}")
        return ExternalModelSource(provider_id=provider, provider_model_id=model)
    if text and "\0" not in text and _exists(text):
        return LocalModelSource(path=text, inplace=inplace)
    return parse_remote(text, access_token=access_token)


def parse_remote(text: str, *, access_token: str | None = None) -> HFModelSource | URLModelSource:
    """Parse a remote source: a repository or a URL. Raises UnsupportedSource."""
    repo = _REPO.match(text)
    if repo and (repo["variant"] or "") in set(ModelRepoVariant):
        variant = ModelRepoVariant(repo["variant"]) if repo["variant"] else None
        subfolder = Path(repo["subfolder"]) if repo["subfolder"] else None
        return HFModelSource(repo_id=repo["repo"], variant=variant, subfolder=subfolder, access_token=access_token)
    if re.match(r"^https?://", text):
        try:
            return URLModelSource(url=AnyHttpUrl(text), access_token=access_token)
        except ValidationError as error:
            raise UnsupportedSource(f"not a valid URL: {text!r}") from error
    raise UnsupportedSource(f"no such file, folder, repository or URL: {text!r}")


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, RuntimeError):
        return False
