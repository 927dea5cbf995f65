"""Install jobs and the sources that they install from, as the wire knows them; it knows the grammar of sources."""

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
    """A file or folder of this machine."""

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
        """Return the address."""
        return str(self.url)


class ExternalModelSource(BaseModel, frozen=True):
    """A model behind somebody else's service."""

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
    """How far an installation is."""

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
    """One installation, kept in memory until it is pruned or the server ends."""

    id: int = Field(description="Number of the job")
    status: InstallStatus = Field(default=InstallStatus.WAITING, description="How far it is")
    error_reason: str | None = Field(default=None, description="Kind of error that ended it")
    config_in: ModelRecordChanges = Field(default_factory=ModelRecordChanges, description="Fields that were stated")
    config_out: AnyModelConfig | None = Field(default=None, description="The record that it made")
    inplace: bool = Field(default=False, description="Leave the files where they are")
    source: ModelSource = Field(description="What is installed")
    local_path: Path = Field(description="Where the files are")
    bytes: int = Field(default=0, description="Bytes that are here")
    total_bytes: int = Field(default=0, description="Bytes in all")
    source_metadata: AnyMetadata | None = Field(default=None, description="What the source says of the model")
    download_parts: Annotated[list[DownloadJob], Field(json_schema_extra={"uniqueItems": True})] = Field(
        default_factory=list, description="Downloads that belong to it"
    )
    error: str | None = Field(default=None, description="Text of the error that ended it")
    error_traceback: str | None = Field(default=None, description="Where that error came from")

    @property
    def ended(self) -> bool:
        """Whether it has come to its end, good or bad."""
        return self.status in TERMINAL

    @property
    def log_fields(self) -> dict[str, Any]:
        """What lines of the log about the job carry."""
        return {"action": "install_model", "install_id": self.id}


class UnsupportedSource(Conflict):
    """The text names no place that a model can come from."""


_REPO = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<variant>[a-z0-9]*)(?::(?P<subfolder>[^:]+))?)?$")


def parse_source(text: str, *, inplace: bool, access_token: str | None) -> ModelSource:
    """Return the source that `text` names: an existing path, `owner/name[:variant[:subfolder]]`, a web address.

    Looks at the file system for whether a path exists, so call it in a thread. Raises UnsupportedSource.
    """
    text = text.strip("\"' ")
    provider, separator, model = text.removeprefix("external://").partition("/")
    if text.startswith("external://") and provider and separator and model:
        if provider not in PROVIDERS:
            raise UnsupportedSource(f"no service is called {provider!r}; there are {', '.join(PROVIDERS)}")
        return ExternalModelSource(provider_id=provider, provider_model_id=model)
    if text and "\0" not in text and _exists(text):
        return LocalModelSource(path=text, inplace=inplace)
    return parse_remote(text, access_token=access_token)


def parse_remote(text: str, *, access_token: str | None = None) -> HFModelSource | URLModelSource:
    """Return the source on the web that `text` names. Raises UnsupportedSource."""
    repo = _REPO.match(text)
    if repo and (repo["variant"] or "") in set(ModelRepoVariant):
        variant = ModelRepoVariant(repo["variant"]) if repo["variant"] else None
        subfolder = Path(repo["subfolder"]) if repo["subfolder"] else None
        return HFModelSource(repo_id=repo["repo"], variant=variant, subfolder=subfolder, access_token=access_token)
    if re.match(r"^https?://", text):
        try:
            return URLModelSource(url=AnyHttpUrl(text), access_token=access_token)
        except ValidationError as error:
            raise UnsupportedSource(f"not a web address: {text!r}") from error
    raise UnsupportedSource(f"no such file, folder, repository or web address: {text!r}")


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, RuntimeError):
        return False
