"""Request and response schemas of models, except the records themselves."""

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
    """Fields of a record set by the user. Absent fields stay unchanged, or are detected at installation."""

    source: str | None = Field(default=None, description="Path, URL or repository the model was installed from")
    source_type: ModelSourceType | None = Field(default=None, description="Type of the source")
    source_api_response: str | None = Field(
        default=None, description="Response of the source's API about the model, as JSON"
    )
    source_url: SourceUrl = Field(default=None, description="Web page of the model")
    name: str | None = Field(default=None, description="Display name")
    path: str | None = Field(default=None, description="Path of the model")
    description: str | None = Field(default=None, description="Description of the model")
    base: BaseModelType | None = Field(default=None, description="Architecture")
    type: ModelType | None = Field(default=None, description="Type of the model")
    key: str | None = Field(default=None, description="Key of the record")
    hash: str | None = Field(default=None, description="Hash of the weights")
    file_size: int | None = Field(default=None, description="Size on disk in bytes")
    format: str | None = Field(default=None, description="Storage format")
    trigger_phrases: TriggerPhrases | None = Field(
        default=None, description="Trigger phrases the model was trained with"
    )
    default_settings: AnyDefaultSettings | None = Field(default=None, description="Default settings")
    provider_id: str | None = Field(default=None, description="Provider of an external model")
    provider_model_id: str | None = Field(default=None, description="Name of the model at its provider")
    capabilities: ExternalModelCapabilities | None = Field(
        default=None, description="Capabilities of an external model"
    )
    cpu_only: bool | None = Field(default=None, description="Whether to run the model on the CPU")
    variant: AnyVariant | None = Field(default=None, description="Variant of the model")
    prediction_type: SchedulerPredictionType | None = Field(default=None, description="Prediction type of the UNet")
    upcast_attention: bool | None = Field(default=None, description="Whether to compute attention in 32 bits")
    config_path: str | None = Field(default=None, description="Configuration file of a checkpoint")

    def explicit_fields(self) -> dict[str, Any]:
        """Return the fields that were set, as plain data; nested settings contain only the fields set in them."""
        return self.model_dump(exclude_unset=True)


class ModelRecordOrderBy(StrEnum):
    """Sort order of a list of records."""

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
    """A list of model records."""

    models: list[AnyModelConfig]


class FoundModel(BaseModel):
    """A possible model in a scanned folder."""

    path: str = Field(description="Absolute path")
    is_installed: bool = Field(description="Whether the model is registered")


class CacheStats(BaseModel):
    """Statistics of the workers' model caches."""

    hits: int = 0
    misses: int = 0
    high_watermark: int = 0
    in_cache: int = 0
    cleared: int = 0
    cache_size: int = 0
    loaded_model_sizes: dict[str, int] = Field(default_factory=dict)


class HFTokenStatus(StrEnum):
    """Status of the Hugging Face token."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


class HuggingFaceModels(BaseModel):
    """The models in a Hugging Face repository."""

    urls: list[AnyHttpUrl] | None = Field(description="URLs of the single-file models")
    is_diffusers: bool = Field(description="Whether the repository is a diffusers pipeline")


class BulkDeleteModelsRequest(BaseModel):
    """The keys of the records to delete."""

    keys: list[str]


class BulkDeleteModelsResponse(BaseModel):
    """The results; `failed` contains objects with `key` and `error`."""

    deleted: list[str]
    failed: list[dict[str, Any]]


class BulkReidentifyModelsRequest(BaseModel):
    """The keys of the records to reidentify."""

    keys: list[str]


class BulkReidentifyModelsResponse(BaseModel):
    """The results; `failed` contains objects with `key` and `error`."""

    succeeded: list[str]
    failed: list[dict[str, Any]]


class OrphanedModelInfo(BaseModel):
    """An entry of the models folder that belongs to no record."""

    path: str = Field(description="Name of the entry")
    absolute_path: str = Field(description="Absolute path")
    files: list[str] = Field(description="Model files in the entry")
    size_bytes: int = Field(description="Size of all files in the entry, in bytes")


class DeleteOrphanedModelsRequest(BaseModel):
    """The paths of the orphaned entries to remove."""

    paths: list[str]


class DeleteOrphanedModelsResponse(BaseModel):
    """The results; `errors` contains messages by path."""

    deleted: list[str]
    errors: dict[str, str]
