"""Several models at once: the tiny one, and others in files."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from invokeclone.engine.loading import loaders
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from tests.tiny_models import TinyModels


class Library(TinyModels):
    """The tiny model, and others by key."""

    def __init__(self, models: TinyModels) -> None:
        super().__init__(models.cache, models.record, models.folder)
        self.others: dict[str, Any] = {}

    def exists(self, identifier: Any) -> bool:
        return getattr(identifier, "key", identifier) in self.others or super().exists(identifier)

    def get_config(self, identifier: Any) -> Any:
        return self.others.get(getattr(identifier, "key", identifier)) or super().get_config(identifier)

    def load(self, identifier: Any, submodel_type: Any = None) -> Any:
        record = self.others.get(getattr(identifier, "key", identifier))
        if record is None:
            return super().load(identifier, submodel_type)
        return loaders.load(self.cache, record, Path(record.path))

    def search_by_attrs(self, **attributes: Any) -> list[Any]:
        return [
            record
            for record in self.others.values()
            if all(getattr(record, name) == value for name, value in attributes.items() if value is not None)
        ]

    def add(self, name: str, path: Path, **facts: Any) -> ModelIdentifierField:
        """Install a file under its name, which is its key as well; returns its identifier."""
        record = SimpleNamespace(key=name, name=name, path=str(path), **facts)
        self.others[name] = record
        return ModelIdentifierField(key=name, hash="blake3:0", name=name, base=record.base, type=record.type)
