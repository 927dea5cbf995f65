"""What goes over the wire about models besides the records themselves."""

from enum import StrEnum
from typing import Any

from pydantic import AnyHttpUrl, BaseModel, Field

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelSourceType, ModelType, SchedulerPredictionType
from invokeclone.kit.paging import SQLiteDirection as SQLiteDirection
from invokeclone.models.configs.defaults import AnyDefaultSettings, TriggerPhrases
from invokeclone.models.configs.external import ExternalModelCapabilities
from invokeclone.models.configs.model_config import SourceUrl
from invokeclone.models.configs.variants import AnyVariant
from invokeclone.models.identify.union import AnyModelConfig as AnyModelConfig


class ModelRecordChanges(BaseModel):
    """Fields of a record that somebody states. Those that are absent stay, or are found out at installation."""

    source: str | None = Field(default=None, description="Where it came from")
    source_type: ModelSourceType | None = Field(default=None, description="What kind of place that is")
    source_api_response: str | None = Field(default=None, description="What the source's service said of it, as JSON")
    source_url: SourceUrl = Field(default=None, description="Web page of the model")
    name: str | None = Field(default=None, description="Name shown to people")
    path: str | None = Field(default=None, description="Where it lies")
    description: str | None = Field(default=None, description="What it is, in words")
    base: BaseModelType | None = Field(default=None, description="Architecture")
    type: ModelType | None = Field(default=None, description="What part of the work it does")
    key: str | None = Field(default=None, description="Key of the record")
    hash: str | None = Field(default=None, description="Hash of the weights")
    file_size: int | None = Field(default=None, description="Bytes on disk")
    format: str | None = Field(default=None, description="How it lies on disk")
    trigger_phrases: TriggerPhrases | None = Field(default=None, description="Words that it was trained to answer to")
    default_settings: AnyDefaultSettings | None = Field(default=None, description="What to start from")
    provider_id: str | None = Field(default=None, description="Service of an external model")
    provider_model_id: str | None = Field(default=None, description="Its name at that service")
    capabilities: ExternalModelCapabilities | None = Field(default=None, description="What an external model can do")
    cpu_only: bool | None = Field(default=None, description="Run it on the CPU")
    variant: AnyVariant | None = Field(default=None, description="Which kind of its family it is")
    prediction_type: SchedulerPredictionType | None = Field(default=None, description="What the UNet predicts")
    upcast_attention: bool | None = Field(default=None, description="Compute attention in 32 bits")
    config_path: str | None = Field(default=None, description="Configuration file of a checkpoint")

    def explicit_fields(self) -> dict[str, Any]:
        """Return the fields that were given, as plain data; settings only with what was set in them."""
        return self.model_dump(exclude_unset=True)


class ModelRecordOrderBy(StrEnum):
    """What a list of records is sorted by."""

    Default = "default"
    Type = "type"
    Base = "base"
    Name = "name"
    Format = "format"
    Size = "size"
    DateAdded = "created_at"
    DateModified = "updated_at"
    Path = "path"


class ModelsList(BaseModel):
    """Records."""

    models: list[AnyModelConfig]


class FoundModel(BaseModel):
    """Something in a scanned folder that may be a model."""

    path: str = Field(description="Where it lies")
    is_installed: bool = Field(description="Whether it is registered")


class CacheStats(BaseModel):
    """What the workers' model caches did."""

    hits: int = 0
    misses: int = 0
    high_watermark: int = 0
    in_cache: int = 0
    cleared: int = 0
    cache_size: int = 0
    loaded_model_sizes: dict[str, int] = Field(default_factory=dict)


class HFTokenStatus(StrEnum):
    """Whether there is a Hugging Face token that works."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


class HuggingFaceModels(BaseModel):
    """What a repository of Hugging Face offers."""

    urls: list[AnyHttpUrl] | None = Field(description="Single-file models in it")
    is_diffusers: bool = Field(description="Whether it is a folder as diffusers saves it")


class BulkDeleteModelsRequest(BaseModel):
    """Records to delete."""

    keys: list[str]


class BulkDeleteModelsResponse(BaseModel):
    """What became of each; `failed` holds objects with `key` and `error`."""

    deleted: list[str]
    failed: list[dict[str, Any]]


class BulkReidentifyModelsRequest(BaseModel):
    """Records to identify anew."""

    keys: list[str]


class BulkReidentifyModelsResponse(BaseModel):
    """What became of each; `failed` holds objects with `key` and `error`."""

    succeeded: list[str]
    failed: list[dict[str, Any]]


class OrphanedModelInfo(BaseModel):
    """An entry of the models folder that belongs to no record."""

    path: str = Field(description="Name of the entry")
    absolute_path: str = Field(description="Where it lies")
    files: list[str] = Field(description="Model files in it")
    size_bytes: int = Field(description="Bytes of all files in it")


class DeleteOrphanedModelsRequest(BaseModel):
    """Entries to remove."""

    paths: list[str]


class DeleteOrphanedModelsResponse(BaseModel):
    """What became of each."""

    deleted: list[str]
    errors: dict[str, str]
