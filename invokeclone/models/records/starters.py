"""Starter models, listed in a `starters.yaml` next to the `spec.py` of each family and component."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict

from invokeclone.graph.invocations import discovery
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from invokeclone.models.configs.defaults import ExternalApiModelDefaultSettings
from invokeclone.models.configs.external import ExternalModelCapabilities, ExternalModelPanelSchema
from invokeclone.models.configs.variants import AnyVariant

FILE_NAME = "starters.yaml"


class StarterModelWithoutDependencies(BaseModel):
    """A starter model."""

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
    """A starter model and its dependencies that are not installed."""

    dependencies: list[StarterModelWithoutDependencies] | None = None


class StarterModelBundle(BaseModel):
    """A bundle of starter models."""

    name: str
    models: list[StarterModel]


class StarterModelResponse(BaseModel):
    """All starter models, and the bundles by base."""

    starter_models: list[StarterModel]
    starter_bundles: dict[str, StarterModelBundle]


class _Entry(StarterModelWithoutDependencies):
    """A starter model in a `starters.yaml`."""

    model_config = ConfigDict(extra="forbid")

    id: str
    needs: list[str] = []


class _Bundle(BaseModel):
    """A bundle in a `starters.yaml`."""

    name: str
    models: list[str]


class _StarterFile(BaseModel):
    """The content of a `starters.yaml`."""

    models: list[_Entry]
    bundles: dict[str, _Bundle] = {}


class InstalledModel(NamedTuple):
    """The fields of a registered model that starter models are compared with."""

    source: str
    name: str
    base: str
    type: str


def files() -> list[Path]:
    """Return the `starters.yaml` files of families and components."""
    files = [Path(str(spec.__file__)).with_name(FILE_NAME) for spec in discovery.modules("spec")]
    return [file for file in files if file.is_file()]


@functools.cache
def _load_files() -> _StarterFile:
    lists = [_StarterFile.model_validate(yaml.safe_load(file.read_text("utf-8"))) for file in files()]
    return _StarterFile(
        models=[entry for starter_file in lists for entry in starter_file.models],
        bundles={base: bundle for starter_file in lists for base, bundle in starter_file.bundles.items()},
    )


def list_starters(installed: Iterable[InstalledModel], content: _StarterFile | None = None) -> StarterModelResponse:
    """Return the starter models, whether each is installed, and their missing dependencies. Blocking."""
    content = content or _load_files()
    entries = {entry.id: entry for entry in content.models}
    registered = list(installed)
    sources = {(model.source, model.type) for model in registered}  # of CLIP's repository there are two types
    kinds = {model[1:] for model in registered}

    def is_installed(entry: _Entry) -> bool:
        names = (entry.name, *entry.previous_names)
        return (entry.source, entry.type) in sources or any((name, entry.base, entry.type) in kinds for name in names)

    def to_dict(entry: _Entry) -> dict[str, Any]:
        return entry.model_dump(exclude={"id", "needs", "is_installed"}) | {"is_installed": is_installed(entry)}

    def to_starter_model(entry: _Entry) -> StarterModel:
        missing = [to_dict(entries[needed]) for needed in entry.needs if not is_installed(entries[needed])]
        return StarterModel.model_validate(to_dict(entry) | {"dependencies": missing if entry.needs else None})

    starter_models = {name: to_starter_model(entry) for name, entry in entries.items()}
    bundles = {
        base: StarterModelBundle(name=bundle.name, models=[starter_models[name] for name in bundle.models])
        for base, bundle in content.bundles.items()
    }
    return StarterModelResponse(starter_models=list(starter_models.values()), starter_bundles=bundles)
