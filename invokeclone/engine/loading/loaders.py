"""Which function loads which kind of model; families and components register theirs with `@loads` in their `load.py`."""

import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from invokeclone.engine import fp8
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.checkpoints import loading
from invokeclone.engine.devices import choose_dtype, is_out_of_memory
from invokeclone.engine.loaded import CachedModel, CachedModelWithoutConfig
from invokeclone.engine.loading.files import read_tensors
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.graph.invocations import discovery
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.kit.errors import NotFound, Unprocessable
from invokeclone.models.errors import InvalidModel


class NoLoader(Unprocessable):
    """No family here can load a model of this base, type and format."""


class ModelFilesMissing(NotFound):
    """The record points to files that are not there."""


class ModelFilesDamaged(Unprocessable):
    """A model's files are cut off, incomplete or not what their names say."""


Loader = Callable[[LoadRequest], Any]
Kind = tuple[BaseModelType | None, ModelType, ModelFormat | None]
_loaders: dict[Kind, Loader] = {}
_MAX_REASON = 300


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


@functools.cache
def discover() -> tuple[ModuleType, ...]:
    """Import the `load` modules, where loaders register themselves; returns them."""
    return tuple(discovery.modules("load"))


def warm_up() -> None:
    """Import what the first image needs, so that it does not wait; call it in a thread when a worker starts."""
    for module in discover():
        if prepare := getattr(module, "warm_up", None):
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


def load(cache: ModelCache, config: Any, path: Path, submodel: SubModelType | None = None) -> CachedModel:
    """Return the model of a record (`key`, `name`, `base`, `type`, `format`), whose files lie at `path`, or a part of it.

    Raises NoLoader, ModelFilesMissing, ModelFilesDamaged, and what the loader raises for files that it cannot use.
    """
    loader = find(config)
    if not path.exists():
        raise ModelFilesMissing(f"the files of {config.name} are not at {path}")
    dtype = choose_dtype(cache.device, cache.settings.precision)
    request = LoadRequest(config, path, submodel, dtype, cache.device, cache.settings)
    key = f"{config.key}:{submodel}" if submodel else str(config.key)
    stored_in_fp8 = fp8.is_stored(config, submodel, cache.device)
    with loading():
        if stored_in_fp8:
            entry = cache.get(f"{key}:fp8", lambda: fp8.store(_load(loader, request), dtype), _size(path, submodel))
        else:
            entry = cache.get(key, lambda: _load(loader, request), _size(path, submodel))
    return CachedModel(config, entry, cache)


def _load(loader: Loader, request: LoadRequest) -> Any:
    """Return what a loader returns; raises ModelFilesDamaged with the model's name for what libraries say of damaged files."""
    from safetensors import SafetensorError

    try:
        return loader(request)
    except (SafetensorError, OSError, RuntimeError, EOFError, InvalidModel) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:_MAX_REASON]
        part = f" ({request.submodel})" if request.submodel else ""
        raise ModelFilesDamaged(
            f"{request.config.name}{part} cannot be read, its files may be cut off or incomplete: install it again ({reason})"
        ) from error


def load_file(cache: ModelCache, path: Path, loader: Callable[[Path], Any] | None = None) -> CachedModelWithoutConfig:
    """Return a model that has no record, by its path; without a `loader` it is the file's tensors, by name."""
    if not path.exists():
        raise ModelFilesMissing(f"there is no model at {path}")
    with loading():
        return CachedModelWithoutConfig(
            cache.get(str(path), lambda: (loader or read_tensors)(path), _size(path)), cache
        )


def _size(path: Path, submodel: SubModelType | None = None) -> int:
    """Return the size of a file, or of the files of a folder's submodel; a guess at what loading will take."""
    if path.is_file():
        return path.stat().st_size
    folder = path / submodel if submodel and (path / submodel).is_dir() else path
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
