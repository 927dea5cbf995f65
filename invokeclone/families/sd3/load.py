"""Loaders of Stable Diffusion 3's parts."""

from typing import Any

from invokeclone.components.autoencoders.load import load_kl_folder
from invokeclone.engine.loading.files import load_folder, load_part
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType

_REMEDIES = {
    SubModelType.TextEncoder: ("CLIP-L text encoder", "a separate CLIP-L model"),
    SubModelType.Tokenizer: ("CLIP-L tokenizer", "a separate CLIP-L model"),
    SubModelType.TextEncoder2: ("CLIP-G text encoder", "a separate CLIP-G model"),
    SubModelType.Tokenizer2: ("CLIP-G tokenizer", "a separate CLIP-G model"),
    SubModelType.TextEncoder3: ("T5 encoder", "a separate T5 encoder, or leave the prompt node's T5 unconnected"),
    SubModelType.Tokenizer3: ("T5 tokenizer", "a separate T5 encoder, or leave the prompt node's T5 unconnected"),
    SubModelType.VAE: ("VAE", "a separate VAE"),
}
"""The name of each part that a folder may lack, and what to select in the model loader instead."""


@loads(base=BaseModelType.StableDiffusion3, type=ModelType.Main, format=ModelFormat.Diffusers)
def load(request: LoadRequest) -> Any:
    """Return a part of a folder: transformer, VAE, text encoder or tokenizer.

    A folder with only the transformer is also accepted.
    """
    variant = getattr(request.config, "repo_variant", None)
    if request.submodel == SubModelType.Transformer and not (request.path / "transformer").is_dir():
        from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

        return load_folder(request.path, SD3Transformer2DModel, request.dtype, variant)
    _check_part(request)
    if request.submodel == SubModelType.VAE:
        return load_kl_folder(request.path / "vae", request.dtype, variant)
    return load_part(request)


def _check_part(request: LoadRequest) -> None:
    """Raise ValueError for a part that the folder does not have."""
    if request.submodel not in _REMEDIES or (request.path / str(request.submodel)).is_dir():
        return
    part, remedy = _REMEDIES[request.submodel]
    raise ValueError(
        f"{request.config.name} has no {part} (folder {request.submodel}): install the complete model, "
        f"or select {remedy}"
    )
