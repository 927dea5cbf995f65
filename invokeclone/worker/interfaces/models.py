"""The `models` interface: records from the database, models from the engine, and events for each load."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.kit.errors import Conflict
from invokeclone.kit.times import timestamp
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.errors import UnknownModelException
from invokeclone.worker.interfaces.progress import NodeProgress
from invokeclone.worker.interfaces.tools import Session


class AmbiguousModel(Conflict):
    """Several models match attributes that should identify one."""


class CachedRecord(NamedTuple):
    """A record and its JSON, which is part of each event about it."""

    config: ModelConfig
    json: bytes


class Models:
    """The models interface of one node. Records are read once per item; later changes affect the next item."""

    def __init__(self, session: Session, progress: NodeProgress) -> None:
        """Serve a node of `session`; loads are reported through `progress`."""
        self._session = session
        self._tools = session.tools
        self._progress = progress

    def exists(self, identifier: str | ModelIdentifierField) -> bool:
        """Return whether a model with this key is registered."""
        try:
            self._record_of(identifier)
        except UnknownModelException:
            return False
        return True

    def load(self, identifier: str | ModelIdentifierField, submodel_type: SubModelType | None = None) -> Any:
        """Return the LoadedModel of a model, or of the submodel given by `submodel_type` or the identifier.

        Raises UnknownModelException, NoLoader, ModelFilesMissing, or an error of the loader.
        """
        record = self._record_of(identifier)
        if submodel_type is None and not isinstance(identifier, str):
            submodel_type = identifier.submodel_type
        return self._load(record, submodel_type)

    def load_by_attrs(
        self,
        name: str,
        base: BaseModelType,
        type: ModelType,  # noqa: A002  (name in InvokeAI's interface)
        submodel_type: SubModelType | None = None,
    ) -> Any:
        """Return the LoadedModel of the only matching model; raises UnknownModelException, AmbiguousModel."""
        configs = self.search_by_attrs(name, base, type)
        if not configs:
            raise UnknownModelException(f"no model is named {name} with base {base} and type {type}")
        if len(configs) > 1:
            raise AmbiguousModel(f"{len(configs)} models are named {name} with base {base} and type {type}")
        return self._load(self._cache_record(configs[0]), submodel_type)

    def get_config(self, identifier: str | ModelIdentifierField) -> ModelConfig:
        """Return the record; raises UnknownModelException."""
        return self._record_of(identifier).config

    def search_by_path(self, path: Path) -> list[ModelConfig]:
        """Return the records of models at `path`, absolute or relative to the models folder."""
        return self._tools.wait(self._session.model_files.search_by_path(path))

    def search_by_attrs(
        self,
        name: str | None = None,
        base: BaseModelType | None = None,
        type: ModelType | None = None,  # noqa: A002  (name in InvokeAI's interface)
        format: ModelFormat | None = None,  # noqa: A002  (name in InvokeAI's interface)
    ) -> list[ModelConfig]:
        """Return the records that match all given attributes."""
        return self._search(name=name, bases=[base] if base else None, type=type, format=format)

    def get_absolute_path(self, config_or_path: ModelConfig | Path | str) -> Path:
        """Return the absolute path of a record or path; relative paths are in the models folder.

        On a worker of another machine the model is fetched first; raises ModelNotFetched, NotOnThisWorker.
        """
        files, report = self._session.model_files, self._progress.signal_progress
        if isinstance(config_or_path, (Path, str)):
            return self._wait_long(files.path_of(str(config_or_path), report))
        return self._wait_long(files.path(config_or_path, report))

    def download_and_cache_model(self, source: str) -> Path:
        """Return the file or folder of a model from a URL or repository, downloaded unless it is in the download cache.

        Raises UnsupportedSource, DownloadFailed and its subclasses, AddressRefused, CanceledException.
        """
        text = str(source)
        name = text.rstrip("/").rpartition("/")[2] or text

        def report(share: float | None) -> None:
            self._progress.signal_progress(f"Downloading {name}", share)

        return self._wait_long(self._tools.downloads.fetch(text, report))

    def load_local_model(self, model_path: Path, loader: Callable[[Path], Any] | None = None) -> Any:
        """Return the LoadedModelWithoutConfig of a path; without `loader` of its tensors. Raises ModelFilesMissing."""
        self._progress.signal_progress(f"Loading model {model_path.name}")
        return self._tools.engine.load_file(Path(model_path), loader)

    def load_remote_model(self, source: str, loader: Callable[[Path], Any] | None = None) -> Any:
        """Download a model with `download_and_cache_model` and load it like `load_local_model`."""
        return self.load_local_model(self.download_and_cache_model(source), loader)

    def _load(self, record: CachedRecord, submodel_type: SubModelType | None) -> Any:
        part = f" ({submodel_type.value})" if submodel_type else ""
        self._progress.signal_progress(f"Loading model {record.config.name}{part}")
        self._emit("model_load_started", record, submodel_type)
        loaded = self._tools.engine.load(record.config, self.get_absolute_path(record.config), submodel_type)
        self._emit("model_load_complete", record, submodel_type)
        return loaded

    def _emit(self, name: str, record: CachedRecord, submodel_type: SubModelType | None) -> None:
        payload = {
            "timestamp": timestamp(),
            "config": orjson.Fragment(record.json),
            "submodel_type": submodel_type.value if submodel_type else None,
            "user_id": self._session.item.user_id,
        }
        self._tools.channel.event(name, orjson.dumps(payload))

    def _record_of(self, identifier: str | ModelIdentifierField) -> CachedRecord:
        key = identifier if isinstance(identifier, str) else identifier.key
        if key not in self._session.models:
            self._cache_record(self._tools.wait(self._tools.backend.model(key)))
        record: CachedRecord = self._session.models[key]
        return record

    def _cache_record(self, config: ModelConfig) -> CachedRecord:
        record = CachedRecord(config, config.model_dump_json().encode())
        self._session.models[config.key] = record
        return record

    def _search(self, **attributes: Any) -> list[ModelConfig]:
        return self._tools.wait(self._tools.backend.search_models(**attributes))

    def _wait_long(self, work: Coroutine[Any, Any, Path]) -> Path:
        """Wait for work that is canceled with the item."""
        return self._tools.wait_unless(self._progress.is_canceled, work)
