"""The record of a model behind somebody else's service; it has no files, so that no rule leads to it."""

from typing import Literal

from pydantic import ConfigDict, Field

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelSourceType, ModelType
from invokeclone.models.configs.defaults import ExternalApiModelDefaultSettings
from invokeclone.models.configs.external import ExternalModelCapabilities, ExternalModelPanelSchema
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.identify.rules import Family


class ExternalApiModelConfig(ModelConfig):
    """A model behind somebody else's service."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(default="", description="Nothing: it has no files")
    hash: str = Field(default="", description="Nothing: it has no files")
    file_size: int = Field(default=0, ge=0, description="Nothing: it has no files")
    source: str = Field(default="", description="`external://<service>/<model>`")
    source_type: ModelSourceType = Field(
        default=ModelSourceType.External, description="What kind of place the source is"
    )
    type: Literal[ModelType.ExternalImageGenerator] = ModelType.ExternalImageGenerator
    format: Literal[ModelFormat.ExternalApi] = ModelFormat.ExternalApi
    base: Literal[BaseModelType.External] = BaseModelType.External
    provider_id: str = Field(min_length=1, description="The service")
    provider_model_id: str = Field(min_length=1, description="The model's name at the service")
    capabilities: ExternalModelCapabilities = Field(description="What it can do")
    default_settings: ExternalApiModelDefaultSettings | None = Field(default=None, description="What to start from")
    panel_schema: ExternalModelPanelSchema | None = Field(default=None, description="Controls that a page shows for it")
    tags: list[str] | None = Field(default=None, description="Words to find it by")
    is_default: bool = Field(default=False, description="Whether it is there from the beginning")


FAMILY = Family(rules=())
