"""Loaders of FLUX.2 models and their parts, from folders and single files."""

from typing import Any

import torch

from invokeclone.components.autoencoders.kl_flux2 import load_kl_flux2_file, load_kl_flux2_folder
from invokeclone.components.flux.single_files import build_transformer, without_prefix
from invokeclone.components.text_encoders.mistral import load_mistral_tokenizer
from invokeclone.components.text_encoders.mistral_files import load_mistral_folder
from invokeclone.components.text_encoders.qwen3 import load_qwen3_encoder, load_qwen3_tokenizer
from invokeclone.engine import devices
from invokeclone.engine.loading.files import load_folder
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.engine.lora import files as lora_files
from invokeclone.engine.quantized.files import read_weights
from invokeclone.engine.quantized.packed import PackedTensor
from invokeclone.families.flux2 import lora_keys, single_files
from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    Flux2VariantType,
    ModelFormat,
    ModelType,
    SubModelType,
)


def _dtype(request: LoadRequest) -> torch.dtype:
    """Return bfloat16 where the device computes in it."""
    return devices.choose_bfloat16_dtype(request.device, request.settings.precision)


def _separate_vae_dtype(request: LoadRequest) -> torch.dtype:
    """Return the number format of an autoencoder that is not part of a pipeline's folder: float32 on the CPU."""
    return torch.float32 if request.device.type == "cpu" else _dtype(request)


@loads(base=BaseModelType.Flux2, type=ModelType.Main, format=ModelFormat.Diffusers)
def load(request: LoadRequest) -> Any:
    """Return a part of a folder: transformer, VAE, text encoder or tokenizer."""
    folder, dtype = request.path / str(request.submodel), _dtype(request)
    variant = getattr(request.config, "repo_variant", None)
    match request.submodel:
        case SubModelType.Transformer:
            from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel

            folder = folder if folder.is_dir() else request.path  # a folder with only the transformer
            return load_folder(folder, Flux2Transformer2DModel, dtype, variant)
        case SubModelType.VAE:
            return load_kl_flux2_folder(folder, dtype, variant)
        case SubModelType.TextEncoder:
            if _is_dev(request):
                return load_mistral_folder(folder, dtype)
            return load_qwen3_encoder(folder, dtype, variant)
        case SubModelType.Tokenizer:
            return (load_mistral_tokenizer if _is_dev(request) else load_qwen3_tokenizer)(folder)
        case _:
            raise _no_such_part(request)


@loads(base=BaseModelType.Flux2, type=ModelType.Main, format=ModelFormat.Checkpoint)
@loads(base=BaseModelType.Flux2, type=ModelType.Main, format=ModelFormat.GGUFQuantized)
def load_checkpoint(request: LoadRequest) -> Any:
    """Return the transformer of a single file, whose quantized weights stay quantized."""
    if request.submodel not in (None, SubModelType.Transformer):
        raise _no_such_part(request)
    return transformer_of(read_weights(request.path), _dtype(request), request.path.name)


@loads(base=BaseModelType.Flux2, type=ModelType.Main, format=ModelFormat.SDNQQuantized)
def load_sdnq(request: LoadRequest) -> Any:
    """Return a part of a folder that SDNQ has quantized, or the transformer of such a file."""
    return load(request) if request.path.is_dir() else load_checkpoint(request)


def transformer_of(tensors: dict[str, torch.Tensor | PackedTensor], dtype: torch.dtype, name: str) -> Any:
    """Return the transformer with these tensors, named as by Black Forest Labs, ComfyUI or diffusers; sizes are theirs.

    `name` is that of the file. `tensors` is emptied. Raises ValueError for missing tensors.
    """
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel

    weights = without_prefix(tensors)
    tensors.clear()
    return build_transformer(
        Flux2Transformer2DModel, single_files.NAMES, single_files.transformer_config, weights, dtype, name
    )


@loads(base=BaseModelType.Flux2, type=ModelType.VAE, format=ModelFormat.Checkpoint)
def load_vae_file(request: LoadRequest) -> Any:
    """Return the autoencoder of a single file."""
    return load_kl_flux2_file(request.path, _separate_vae_dtype(request))


@loads(base=BaseModelType.Flux2, type=ModelType.VAE, format=ModelFormat.Diffusers)
def load_vae_folder(request: LoadRequest) -> Any:
    """Return the autoencoder of a folder."""
    variant = getattr(request.config, "repo_variant", None)
    return load_kl_flux2_folder(request.path, _separate_vae_dtype(request), variant)


@loads(base=BaseModelType.Flux2, type=ModelType.LoRA, format=ModelFormat.LyCORIS)
@loads(base=BaseModelType.Flux2, type=ModelType.LoRA, format=ModelFormat.Diffusers)
def load_lora(request: LoadRequest) -> lora_files.LoRAWeights:
    """Return a LoRA from a file or a folder."""
    return lora_files.load_lora(request.path, lora_keys.LAYOUT, request.dtype)


def _is_dev(request: LoadRequest) -> bool:
    return getattr(request.config, "variant", None) == Flux2VariantType.Dev


def _no_such_part(request: LoadRequest) -> ValueError:
    return ValueError(
        f"{request.config.name} has no part {request.submodel!r}: select a model that has it, such as a separate "
        "text encoder or VAE"
    )
