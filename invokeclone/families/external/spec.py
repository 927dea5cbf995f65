"""Record class of models of external API services. It has no identification rule because there are no files."""

from typing import Literal

from pydantic import ConfigDict, Field

from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelSourceType, ModelType
from invokeclone.models.configs.defaults import ExternalApiModelDefaultSettings
from invokeclone.models.configs.external import ExternalModelCapabilities, ExternalModelPanelSchema
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.identify.rules import Family


class ExternalApiModelConfig(ModelConfig):
    """A model of an external API service."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(default="", description="Unused: external models have no files")
    hash: str = Field(default="", description="Unused: external models have no files")
    file_size: int = Field(default=0, ge=0, description="Unused: external models have no files")
    source: str = Field(default="", description="`external://<service>/<model>`")
    source_type: ModelSourceType = Field(default=ModelSourceType.External, description="Type of the source")
    type: Literal[ModelType.ExternalImageGenerator] = ModelType.ExternalImageGenerator
    format: Literal[ModelFormat.ExternalApi] = ModelFormat.ExternalApi
    base: Literal[BaseModelType.External] = BaseModelType.External
    provider_id: str = Field(min_length=1, description="Identifier of the service")
    provider_model_id: str = Field(min_length=1, description="The model's name at the service")
    capabilities: ExternalModelCapabilities = Field(description="Capabilities of the model")
    default_settings: ExternalApiModelDefaultSettings | None = Field(
        default=None, description="Default settings of the model"
    )
    panel_schema: ExternalModelPanelSchema | None = Field(
        default=None, description="Controls that the web UI shows for it"
    )
    tags: list[str] | None = Field(default=None, description="Tags to search for")
    is_default: bool = Field(default=False, description="Whether it is installed by default")


FAMILY = Family(rules=())
