"""Loaders of Z-Image models and their parts."""

from typing import Any

from invokeclone.components.autoencoders.load import load_kl_folder
from invokeclone.components.text_encoders.qwen3 import load_qwen3_encoder, load_qwen3_tokenizer
from invokeclone.engine import devices
from invokeclone.engine.loading.files import load_folder
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType


@loads(base=BaseModelType.ZImage, type=ModelType.Main, format=ModelFormat.Diffusers)
def load(request: LoadRequest) -> Any:
    """Return a part of a folder: transformer, VAE, Qwen3 or its tokenizer. Raises ValueError for a missing part."""
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

    folder = request.path / str(request.submodel)
    if not folder.is_dir():
        raise ValueError(f"{request.config.name} has no folder {request.submodel}: install the complete model again")
    variant = getattr(request.config, "repo_variant", None)
    dtype = devices.choose_bfloat16_dtype(request.device, request.settings.precision)
    match request.submodel:
        case SubModelType.VAE:
            return load_kl_folder(folder, dtype, variant)
        case SubModelType.Tokenizer:
            return load_qwen3_tokenizer(folder)
        case SubModelType.TextEncoder:
            return load_qwen3_encoder(folder, dtype, variant)
        case SubModelType.Transformer:
            return load_folder(folder, ZImageTransformer2DModel, dtype, variant)
        case _:
            raise ValueError(f"{request.config.name}: Z-Image models have no part {request.submodel!r}")
