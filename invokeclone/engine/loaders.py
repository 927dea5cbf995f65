"""Which function loads which kind of model; families add theirs with `@loads`, nobody edits a list here.

It finds the function and asks the cache; it refuses to know a file format beyond "safetensors or torch".
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from invokeclone.engine.cache import ModelCache
from invokeclone.engine.devices import choose_dtype
from invokeclone.engine.loaded import LoadedModel, LoadedModelWithoutConfig
from invokeclone.graph.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.kit.errors import NotFound, Unprocessable
from invokeclone.kit.settings import Settings


class NoLoader(Unprocessable):
    """No family here can load a model of this base, type and format."""


class ModelFilesMissing(NotFound):
    """The record points to files that are not there."""


@dataclass(frozen=True)
class LoadRequest:
    """What a loader is told. It returns the model with its weights in RAM, in `dtype`, ready to compute (`eval()`)."""

    config: Any
    """The model's record."""
    path: Path
    """Its file or folder, absolute."""
    submodel: SubModelType | None
    dtype: torch.dtype
    device: torch.device
    settings: Settings


Loader = Callable[[LoadRequest], Any]
Kind = tuple[BaseModelType | None, ModelType, ModelFormat | None]
_loaders: dict[Kind, Loader] = {}
_pipes: list[ModuleType] = []


def loads(
    *,
    type: ModelType,  # noqa: A002 - the word of the records
    base: BaseModelType | None = None,
    format: ModelFormat | None = None,  # noqa: A002 - the word of the records
) -> Callable[[Loader], Loader]:
    """Register a loader for a kind of model; a base or format of None stands for any. May be stacked."""

    def register(loader: Loader) -> Loader:
        _loaders[base, type, format] = loader
        return loader

    return register


def discover() -> list[ModuleType]:
    """Import `invokeclone.families.*.pipe`, where loaders register themselves; returns the modules."""
    if not _pipes:
        families = importlib.import_module("invokeclone.families")
        names = [info.name for info in pkgutil.iter_modules(families.__path__) if info.ispkg]
        pipes = [f"{families.__name__}.{name}.pipe" for name in names]
        _pipes.extend(importlib.import_module(pipe) for pipe in pipes if importlib.util.find_spec(pipe))
    return _pipes


def warm_up() -> None:
    """Import what the first picture needs, so that it does not wait; call it in a thread when a worker starts."""
    for pipe in discover():
        if prepare := getattr(pipe, "warm_up", None):
            prepare()


def find(config: Any) -> Loader:
    """Return the loader for a record's base, type and format; raises NoLoader."""
    discover()
    base, type_, format_ = config.base, config.type, config.format
    for kind in ((base, type_, format_), (None, type_, format_), (base, type_, None), (None, type_, None)):
        if loader := _loaders.get(kind):
            return loader
    kind_name = f"{base} {type_} in {format_} format"
    raise NoLoader(f"cannot load {config.name}: models of this kind ({kind_name}) are not supported yet")


def load(cache: ModelCache, config: Any, path: Path, submodel: SubModelType | None = None) -> LoadedModel:
    """Return the model of a record (`key`, `name`, `base`, `type`, `format`), whose files lie at `path`, or a part of it.

    Raises NoLoader, ModelFilesMissing, and what the loader raises for files that it cannot read.
    """
    loader = find(config)
    if not path.exists():
        raise ModelFilesMissing(f"the files of {config.name} are not at {path}")
    dtype = choose_dtype(cache.device, cache.settings.precision)
    request = LoadRequest(config, path, submodel, dtype, cache.device, cache.settings)
    key = f"{config.key}:{submodel}" if submodel else str(config.key)
    return LoadedModel(config, cache.get(key, lambda: loader(request), _size(path, submodel)), cache)


def load_file(cache: ModelCache, path: Path, loader: Callable[[Path], Any] | None = None) -> LoadedModelWithoutConfig:
    """Return a model that has no record, by its path; without a `loader` it is the file's tensors, by name."""
    if not path.exists():
        raise ModelFilesMissing(f"there is no model at {path}")
    return LoadedModelWithoutConfig(cache.get(str(path), lambda: (loader or read_tensors)(path), _size(path)), cache)


def read_tensors(path: Path) -> Any:
    """Return the tensors of a safetensors file, or of a torch file, of which nothing but tensors is accepted."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file as load_safetensors

        return load_safetensors(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _size(path: Path, submodel: SubModelType | None = None) -> int:
    """Return the size of a file, or of the files of a folder's submodel; a guess at what loading will take."""
    if path.is_file():
        return path.stat().st_size
    folder = path / submodel if submodel and (path / submodel).is_dir() else path
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
