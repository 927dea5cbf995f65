"""The parts of a folder, by the classes that its model_index.json names."""

from typing import Any

from invokeclone.engine.loading.files import load_part
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType


@loads(base=BaseModelType.Unknown, type=ModelType.Main, format=ModelFormat.Diffusers)
def load(request: LoadRequest) -> Any:
    return load_part(request)
