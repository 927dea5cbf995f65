"""Loaders of Z-Image models and their parts."""

from typing import Any

import torch

from invokeclone.components.autoencoders.load import load_kl_folder
from invokeclone.components.text_encoders.qwen3 import load_qwen3_encoder, load_qwen3_tokenizer
from invokeclone.engine import devices
from invokeclone.engine.loading.files import load_folder
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.engine.lora import files as lora_files
from invokeclone.engine.quantized.files import read_weights
from invokeclone.engine.quantized.packed import PackedTensor, fill
from invokeclone.families.z_image import lora_keys, single_files
from invokeclone.families.z_image.controlnet import load_controlnet_file
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.kit import log

logger = log.get("families.z_image")


@loads(base=BaseModelType.ZImage, type=ModelType.Main, format=ModelFormat.Diffusers)
def load(request: LoadRequest) -> Any:
    """Return a part of a folder: transformer, VAE, Qwen3 or its tokenizer. Raises ValueError for a missing part."""
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

    folder = request.path / str(request.submodel)
    if not folder.is_dir():
        raise ValueError(f"{request.config.name} has no folder {request.submodel}: install the complete model again")
    variant = getattr(request.config, "repo_variant", None)
    dtype = _dtype(request)
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


@loads(base=BaseModelType.ZImage, type=ModelType.Main, format=ModelFormat.Checkpoint)
@loads(base=BaseModelType.ZImage, type=ModelType.Main, format=ModelFormat.GGUFQuantized)
def load_checkpoint(request: LoadRequest) -> Any:
    """Return the transformer of a single file, whose quantized weights stay quantized."""
    if request.submodel not in (None, SubModelType.Transformer):
        raise ValueError(f"{request.config.name} is a file with only a transformer: it has no {request.submodel}")
    return transformer_of(read_weights(request.path), _dtype(request), request.path.name)


@loads(base=BaseModelType.ZImage, type=ModelType.Main, format=ModelFormat.SDNQQuantized)
def load_sdnq(request: LoadRequest) -> Any:
    """Return a part of a folder that SDNQ has quantized, or the transformer of such a file."""
    return load(request) if request.path.is_dir() else load_checkpoint(request)


def transformer_of(tensors: dict[str, torch.Tensor | PackedTensor], dtype: torch.dtype, name: str) -> Any:
    """Return the transformer with these tensors, named as by the authors, ComfyUI or diffusers; sizes are theirs.

    `name` is that of the file. `tensors` is emptied. Raises ValueError for missing tensors.
    """
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

    try:
        weights = single_files.to_diffusers_names(single_files.without_prefix(tensors))
        tensors.clear()
        with torch.device("meta"):
            model = ZImageTransformer2DModel(**single_files.transformer_config(weights))
        missing, unknown = fill(model, weights, dtype)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{name} holds an incomplete transformer, download it again: {reason}") from error
    if missing:
        raise ValueError(f"{name} holds an incomplete transformer ({missing[0]} is missing): download it again")
    if unknown:
        logger.warning("%s: %s unknown tensors are ignored, such as %s", name, len(unknown), unknown[0])
    return model.eval()


@loads(base=BaseModelType.ZImage, type=ModelType.LoRA, format=ModelFormat.LyCORIS)
@loads(base=BaseModelType.ZImage, type=ModelType.LoRA, format=ModelFormat.Diffusers)
def load_lora(request: LoadRequest) -> lora_files.LoRAWeights:
    """Return a LoRA from a file or a folder."""
    return lora_files.load_lora(request.path, lora_keys.LAYOUT, request.dtype)


@loads(base=BaseModelType.ZImage, type=ModelType.ControlNet, format=ModelFormat.Checkpoint)
def load_controlnet(request: LoadRequest) -> Any:
    """Return a ControlNet from a file."""
    return load_controlnet_file(request.path, _dtype(request))


def _dtype(request: LoadRequest) -> torch.dtype:
    """Return the number format of all networks, which overflow in float16."""
    return devices.choose_bfloat16_dtype(request.device, request.settings.precision)
