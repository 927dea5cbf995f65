"""Load, and nothing else to do."""

import json

from invokeclone.engine.loaders import LoadRequest, loads
from invokeclone.graph.taxonomy import BaseModelType, ModelFormat, ModelType


@loads(base=BaseModelType.StableDiffusion3, type=ModelType.Main, format=ModelFormat.Diffusers)
def load(request: LoadRequest) -> list[int]:
    return json.loads((request.path / "model_index.json").read_text())["colour"]
