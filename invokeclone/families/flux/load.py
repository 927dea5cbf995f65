"""Loaders of FLUX.1 models and their parts, from folders and single files."""

from pathlib import Path
from typing import Any

import torch

from invokeclone.components.autoencoders.load import load_kl_file, load_kl_folder
from invokeclone.components.clip.load import load_text_encoder_file, tokenizer
from invokeclone.components.flux.single_files import build_transformer, prefix_of, without_prefix
from invokeclone.components.text_encoders.load import load_t5_encoder, load_t5_tokenizer
from invokeclone.components.text_encoders.t5_files import load_t5_file
from invokeclone.engine import devices
from invokeclone.engine.loading.files import load_folder, load_part
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.engine.lora import files as lora_files
from invokeclone.engine.quantized.files import read_weights
from invokeclone.engine.quantized.packed import PackedTensor
from invokeclone.families.flux import lora_keys, single_files
from invokeclone.families.flux.controlnet import load_controlnet_file
from invokeclone.families.flux.ip_adapter import load_ip_adapter
from invokeclone.families.flux.parts import BUNDLED_PARTS
from invokeclone.families.flux.redux import load_redux
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.models.files.model_files import ModelFiles

_CONFIGS = Path(__file__).parent / "configs"
_CLASSES = {
    SubModelType.Transformer: "diffusers.FluxTransformer2DModel",
    SubModelType.TextEncoder: "transformers.CLIPTextModel",
    SubModelType.Tokenizer: "transformers.CLIPTokenizer",
}


def transformer_dtype(request: LoadRequest) -> torch.dtype:
    """Return the number format of the transformer: bfloat16 where the device computes in it."""
    return devices.choose_bfloat16_dtype(request.device, request.settings.precision)


def vae_dtype(request: LoadRequest) -> torch.dtype:
    """Return the number format of the autoencoder, which overflows in float16: float32 on the CPU and without bfloat16."""
    dtype = transformer_dtype(request)
    return torch.float32 if request.device.type == "cpu" or dtype == torch.float16 else dtype


@loads(base=BaseModelType.Flux, type=ModelType.Main, format=ModelFormat.Diffusers)
def load(request: LoadRequest) -> Any:
    """Return a part of a folder: transformer, VAE, text encoder or tokenizer."""
    folder = request.path / str(request.submodel)
    variant = getattr(request.config, "repo_variant", None)
    match request.submodel:
        case SubModelType.VAE:
            return load_kl_folder(folder, vae_dtype(request), variant)
        case SubModelType.TextEncoder2:
            return load_t5_encoder(folder, variant)
        case SubModelType.Tokenizer2:
            return load_t5_tokenizer(folder)
        case SubModelType.Transformer:
            folder = folder if folder.is_dir() else request.path  # a folder with only the transformer
            from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

            return load_folder(folder, FluxTransformer2DModel, transformer_dtype(request), variant)
        case SubModelType.TextEncoder | SubModelType.Tokenizer:
            return load_part(request, _CLASSES[request.submodel], dtype=transformer_dtype(request))
        case _:
            raise _no_such_part(request)


@loads(base=BaseModelType.Flux, type=ModelType.Main, format=ModelFormat.Checkpoint)
@loads(base=BaseModelType.Flux, type=ModelType.Main, format=ModelFormat.GGUFQuantized)
@loads(base=BaseModelType.Flux, type=ModelType.Main, format=ModelFormat.BnbQuantizednf4b)
def load_checkpoint(request: LoadRequest) -> Any:
    """Return the transformer of a single file, whose quantized weights stay quantized, or another part of a bundle."""
    match request.submodel:
        case SubModelType.VAE:
            return load_kl_file(request.path, vae_dtype(request), _CONFIGS, BUNDLED_PARTS[SubModelType.VAE])
        case SubModelType.TextEncoder:
            prefix, config = BUNDLED_PARTS[SubModelType.TextEncoder], _CONFIGS / "text_encoder" / "config.json"
            return load_text_encoder_file(request.path, transformer_dtype(request), config, prefix)
        case SubModelType.TextEncoder2 if ModelFiles(request.path).has_prefix(BUNDLED_PARTS[request.submodel]):
            return load_t5_file(request.path, transformer_dtype(request), BUNDLED_PARTS[request.submodel])
        case SubModelType.Tokenizer:
            return tokenizer()
        case None | SubModelType.Transformer:
            pass
        case _:
            raise _no_such_part(request)
    prefixes = (prefix_of(ModelFiles(request.path).tensors),)  # a bundle's other parts are not read
    return transformer_of(read_weights(request.path, prefixes), transformer_dtype(request), request.path.name)


@loads(base=BaseModelType.Flux, type=ModelType.Main, format=ModelFormat.SDNQQuantized)
def load_sdnq(request: LoadRequest) -> Any:
    """Return a part of a folder that SDNQ has quantized, or the transformer of such a file."""
    return load(request) if request.path.is_dir() else load_checkpoint(request)


def transformer_of(tensors: dict[str, torch.Tensor | PackedTensor], dtype: torch.dtype, name: str) -> Any:
    """Return the transformer with these tensors, named as by Black Forest Labs, ComfyUI or diffusers; sizes are theirs.

    `name` is that of the file. `tensors` is emptied. Raises ValueError for missing tensors.
    """
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    weights = without_prefix(tensors)
    tensors.clear()
    return build_transformer(
        FluxTransformer2DModel, single_files.NAMES, single_files.transformer_config, weights, dtype, name
    )


@loads(base=BaseModelType.Flux, type=ModelType.VAE, format=ModelFormat.Checkpoint)
def load_vae(request: LoadRequest) -> Any:
    """Return the autoencoder of a single file."""
    return load_kl_file(request.path, vae_dtype(request), _CONFIGS)


@loads(base=BaseModelType.Flux, type=ModelType.LoRA, format=ModelFormat.LyCORIS)
@loads(base=BaseModelType.Flux, type=ModelType.LoRA, format=ModelFormat.OMI)
@loads(base=BaseModelType.Flux, type=ModelType.LoRA, format=ModelFormat.Diffusers)
@loads(base=BaseModelType.Flux, type=ModelType.ControlLoRa, format=ModelFormat.LyCORIS)
def load_lora(request: LoadRequest) -> lora_files.LoRAWeights:
    """Return a LoRA or a control LoRA from a file or a folder."""
    return lora_files.load_lora(request.path, lora_keys.LAYOUT, request.dtype)


@loads(base=BaseModelType.Flux, type=ModelType.ControlNet, format=ModelFormat.Diffusers)
def load_controlnet(request: LoadRequest) -> Any:
    """Return a ControlNet from a folder."""
    from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel

    variant = getattr(request.config, "repo_variant", None)
    return load_folder(request.path, FluxControlNetModel, transformer_dtype(request), variant)


@loads(base=BaseModelType.Flux, type=ModelType.ControlNet, format=ModelFormat.Checkpoint)
def load_controlnet_checkpoint(request: LoadRequest) -> Any:
    """Return a ControlNet from a single file."""
    return load_controlnet_file(request.path, transformer_dtype(request))


@loads(base=BaseModelType.Flux, type=ModelType.IPAdapter)
def load_image_prompt_adapter(request: LoadRequest) -> Any:
    """Return an IP-Adapter from a file."""
    return load_ip_adapter(request.path, transformer_dtype(request))


@loads(base=BaseModelType.Flux, type=ModelType.FluxRedux)
def load_redux_model(request: LoadRequest) -> Any:
    """Return a Redux model from a file."""
    return load_redux(request.path, transformer_dtype(request))


def _no_such_part(request: LoadRequest) -> ValueError:
    return ValueError(
        f"{request.config.name} has no part {request.submodel!r}: select a model that has it, such as a separate "
        "T5 encoder, CLIP text encoder or VAE"
    )
