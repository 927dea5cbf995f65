"""The list of models to begin with. It is empty as long as nothing can be downloaded."""

from pydantic import BaseModel

from invokeclone.graph.taxonomy import BaseModelType, ModelFormat, ModelType
from invokeclone.models.defaults import ExternalApiModelDefaultSettings
from invokeclone.models.external import ExternalModelCapabilities, ExternalModelPanelSchema
from invokeclone.models.variants import AnyVariant


class StarterModelWithoutDependencies(BaseModel):
    """A model to begin with."""

    description: str
    source: str
    name: str
    base: BaseModelType
    type: ModelType
    format: ModelFormat | None = None
    variant: AnyVariant | None = None
    is_installed: bool = False
    capabilities: ExternalModelCapabilities | None = None
    default_settings: ExternalApiModelDefaultSettings | None = None
    panel_schema: ExternalModelPanelSchema | None = None
    previous_names: list[str] = []


class StarterModel(StarterModelWithoutDependencies):
    """A model to begin with, and those that it needs and that are not installed."""

    dependencies: list[StarterModelWithoutDependencies] | None = None


class StarterModelBundle(BaseModel):
    """Models that go together."""

    name: str
    models: list[StarterModel]


class StarterModelResponse(BaseModel):
    """Every model to begin with, and the bundles by their base."""

    starter_models: list[StarterModel]
    starter_bundles: dict[str, StarterModelBundle]


def starters() -> StarterModelResponse:
    """Return the starter models with whether each is installed."""
    return StarterModelResponse(starter_models=[], starter_bundles={})
