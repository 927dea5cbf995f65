"""Loaders of CogView4's parts. The networks overflow in float16."""

from dataclasses import replace
from typing import Any

from invokeclone.components.autoencoders.load import load_kl_folder
from invokeclone.engine import devices
from invokeclone.engine.loading.files import load_part
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType


@loads(base=BaseModelType.CogView4, type=ModelType.Main, format=ModelFormat.Diffusers)
def load(request: LoadRequest) -> Any:
    """Return a part of a folder: transformer, VAE, GLM or its tokenizer. Raises ValueError for a missing part."""
    if not (request.path / str(request.submodel)).is_dir():
        raise ValueError(f"{request.config.name} has no folder {request.submodel}: install the complete model again")
    dtype = devices.choose_bfloat16_dtype(request.device, request.settings.precision)
    request = replace(request, dtype=dtype)
    if request.submodel == SubModelType.VAE:
        return load_kl_folder(request.path / "vae", dtype, getattr(request.config, "repo_variant", None))
    return load_part(request)
