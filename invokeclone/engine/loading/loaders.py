"""Registry of model loaders. Families and components register functions with `@loads` in their `load.py`."""

import functools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from invokeclone.engine import fp8
from invokeclone.engine.cache import ModelCache
from invokeclone.engine.checkpoints import loading
from invokeclone.engine.devices import CPU_DEVICE, choose_dtype, is_out_of_memory
from invokeclone.engine.loaded import CachedModel, CachedModelWithoutConfig
from invokeclone.engine.loading.files import read_tensors
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.graph.invocations import discovery
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.kit.errors import NotFound, Unprocessable
from invokeclone.models.errors import InvalidModel


class NoLoader(Unprocessable):
    """No loader is registered for this base, type and format."""


class ModelFilesMissing(NotFound):
    """The record refers to files that do not exist."""


class ModelFilesDamaged(Unprocessable):
    """A model's files are truncated, incomplete or mislabeled."""


Loader = Callable[[LoadRequest], Any]
Kind = tuple[BaseModelType | None, ModelType, ModelFormat | None]
_loaders: dict[Kind, Loader] = {}
_MAX_REASON = 300
_TEXT_ENCODERS = (SubModelType.TextEncoder, SubModelType.TextEncoder2, SubModelType.TextEncoder3)


def loads(
    *,
    type: ModelType,  # noqa: A002 - the word of the records
    base: BaseModelType | None = None,
    format: ModelFormat | None = None,  # noqa: A002 - the word of the records
) -> Callable[[Loader], Loader]:
    """Register a loader for a kind of model; a base or format of None matches any. Can be stacked."""

    def register(loader: Loader) -> Loader:
        _loaders[base, type, format] = loader
        return loader

    return register


@functools.cache
def discover() -> tuple[ModuleType, ...]:
    """Import the `load` modules, which register their loaders, and return them."""
    return tuple(discovery.modules("load"))


def warm_up() -> None:
    """Import the modules that the first image needs. Call it in a thread when a worker starts."""
    for module in discover():
        if prepare := getattr(module, "warm_up", None):
            prepare()


def find(config: Any) -> Loader:
    """Return the loader for a record's base, type and format. Raises NoLoader."""
    discover()
    base, type_, format_ = config.base, config.type, config.format
    for kind in ((base, type_, format_), (None, type_, format_), (base, type_, None), (None, type_, None)):
        if loader := _loaders.get(kind):
            return loader
    kind_name = f"{base} {type_} in {format_} format"
    raise NoLoader(f"cannot load {config.name}: models of this kind ({kind_name}) are not supported yet")


def load(cache: ModelCache, config: Any, path: Path, submodel: SubModelType | None = None) -> CachedModel:
    """Return the model of a record, or a part of it.

    The record has `key`, `name`, `base`, `type` and `format`; its files are at `path`. Raises NoLoader,
    ModelFilesMissing, ModelFilesDamaged, and the loader's errors for unusable files.
    """
    loader = find(config)
    if not path.exists():
        raise ModelFilesMissing(f"the files of {config.name} are missing from {path}")
    on_cpu = runs_on_cpu(config, submodel)
    device = CPU_DEVICE if on_cpu else cache.device
    request = LoadRequest(
        config, path, submodel, choose_dtype(device, cache.settings.precision), device, cache.settings
    )
    key = f"{config.key}:{submodel}" if submodel else str(config.key)
    with loading():
        if fp8.is_stored(config, submodel, device):
            entry = cache.get(f"{key}:fp8", lambda: _load_in_fp8(loader, request), _size(path, submodel))
        else:
            name = f"{key}:cpu" if on_cpu and cache.memory.separate else key
            entry = cache.get(name, lambda: _load(loader, request), _size(path, submodel), on_cpu=on_cpu)
    return CachedModel(config, entry, cache)


def runs_on_cpu(config: Any, submodel: SubModelType | None) -> bool:
    """Return whether a record asks to run the model on the CPU, or the text encoders if it is a main model."""
    if getattr(config, "cpu_only", None):
        return True
    settings = getattr(config, "default_settings", None)
    return submodel in _TEXT_ENCODERS and bool(getattr(settings, "cpu_only", None))


def _load_in_fp8(loader: Loader, request: LoadRequest) -> Any:
    """Return the loader's network with 8-bit weights; it computes in the number format that the loader selected."""
    model = _load(loader, request)
    return fp8.store(model, getattr(model, "dtype", request.dtype))


def _load(loader: Loader, request: LoadRequest) -> Any:
    """Return the loader's result.

    Library errors about damaged files are raised as ModelFilesDamaged with the model's name.
    """
    from safetensors import SafetensorError

    try:
        return loader(request)
    except (SafetensorError, OSError, RuntimeError, EOFError, InvalidModel) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:_MAX_REASON]
        part = f" ({request.submodel})" if request.submodel else ""
        raise ModelFilesDamaged(
            f"{request.config.name}{part} cannot be read, its files may be damaged or incomplete: install it again ({reason})"
        ) from error


def load_file(cache: ModelCache, path: Path, loader: Callable[[Path], Any] | None = None) -> CachedModelWithoutConfig:
    """Return a model without a record, by its path; without a `loader`, its tensors by name."""
    if not path.exists():
        raise ModelFilesMissing(f"there is no model at {path}")
    with loading():
        return CachedModelWithoutConfig(
            cache.get(str(path), lambda: (loader or read_tensors)(path), _size(path)), cache
        )


def _size(path: Path, submodel: SubModelType | None = None) -> int:
    """Return the size of a file, or of a submodel's files in a folder; estimates the memory that loading takes."""
    if path.is_file():
        return path.stat().st_size
    folder = path / submodel if submodel and (path / submodel).is_dir() else path
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
