"""Loaders of Stable Diffusion models and their parts, from folders and single files."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from invokeclone.components.autoencoders.load import load_kl_file, load_kl_folder
from invokeclone.components.autoencoders.vae import encode
from invokeclone.components.clip import textual_inversion
from invokeclone.engine import devices, preview
from invokeclone.engine.loading.files import load_part, read_json
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.loading.loaders import loads
from invokeclone.engine.lora import files as lora_files
from invokeclone.engine.preview import LatentColors
from invokeclone.families.stable_diffusion import control_models, ip_adapter, lora_keys, single_files
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType

_CLASSES = {
    SubModelType.UNet: "diffusers.UNet2DConditionModel",
    SubModelType.TextEncoder: "transformers.CLIPTextModel",
    SubModelType.TextEncoder2: "transformers.CLIPTextModelWithProjection",
    SubModelType.Tokenizer: "transformers.CLIPTokenizer",
    SubModelType.Tokenizer2: "transformers.CLIPTokenizer",
}
_WITH_VAES = (BaseModelType.StableDiffusion1, BaseModelType.StableDiffusion2, BaseModelType.StableDiffusionXL)
_PUBLISHED_VAE = [128, 256, 512, 512]
_SMALL_VAE = 50 * 2**20
"""Maximum size in bytes of an unusual autoencoder for which a preview is fitted."""


_Loader = Callable[[LoadRequest], Any]


def _loads_main(file_format: ModelFormat) -> Callable[[_Loader], _Loader]:
    """Register a loader for the main models of the four bases."""
    bases = (*_WITH_VAES, BaseModelType.StableDiffusionXLRefiner)
    return _register_loader(ModelType.Main, file_format, bases)


def _loads_vae(file_format: ModelFormat) -> Callable[[_Loader], _Loader]:
    """Register a loader for standalone autoencoders."""
    return _register_loader(ModelType.VAE, file_format, _WITH_VAES)


def _register_loader(
    model_type: ModelType, file_format: ModelFormat, bases: Iterable[BaseModelType]
) -> Callable[[_Loader], _Loader]:
    def register(loader: _Loader) -> _Loader:
        for base in bases:
            loads(base=base, type=model_type, format=file_format)(loader)
        return loader

    return register


def warm_up() -> None:
    """Import the modules that the first image needs, which takes seconds."""
    import diffusers.models.autoencoders.autoencoder_kl
    import diffusers.models.unets.unet_2d_condition
    import diffusers.schedulers.scheduling_ddim
    import diffusers.schedulers.scheduling_euler_discrete  # noqa: F401
    import transformers

    _ = (transformers.CLIPTextModel, transformers.CLIPTokenizer)  # these attributes are imported lazily


@_loads_main(ModelFormat.Diffusers)
def load(request: LoadRequest) -> Any:
    """Return a part of a folder: UNet, VAE, scheduler, text encoder or tokenizer."""
    match request.submodel:
        case SubModelType.UNet:
            unet = devices.to_memory_format(load_part(request, _CLASSES[SubModelType.UNet]), request.device)
            unet.latent_colors = _preview_of(request.path / "vae")
            return unet
        case SubModelType.VAE:
            return _vae(request, request.path / "vae")
        case SubModelType.Scheduler:
            return _scheduler(read_json(request.path / "scheduler" / "scheduler_config.json"))
        case part if part in _CLASSES:
            return load_part(request, _CLASSES[part])
        case _:
            raise _no_such_part(request)


@_loads_main(ModelFormat.Checkpoint)
def load_checkpoint(request: LoadRequest) -> Any:
    """Return a part of a single file."""
    base = request.config.base
    if request.submodel == SubModelType.Scheduler:
        return _scheduler(single_files.scheduler_config(request.path, single_files.configs_of(base)))
    parts = single_files.parts(base, request.path, request.dtype)
    if request.submodel is None or request.submodel not in parts:
        raise _no_such_part(request)
    part = parts[request.submodel]()
    is_network = request.submodel in (SubModelType.UNet, SubModelType.VAE)
    return devices.to_memory_format(part, request.device) if is_network else part


@_loads_vae(ModelFormat.Diffusers)
def load_vae(request: LoadRequest) -> Any:
    """Return an autoencoder from a folder."""
    return _vae(request, request.path)


@_loads_vae(ModelFormat.Checkpoint)
def load_vae_checkpoint(request: LoadRequest) -> Any:
    """Return an autoencoder from a single file."""
    configs = single_files.configs_of(request.config.base)
    return devices.to_memory_format(load_kl_file(request.path, request.dtype, configs), request.device)


@_register_loader(ModelType.ControlNet, ModelFormat.Diffusers, _WITH_VAES)
def load_controlnet(request: LoadRequest) -> Any:
    """Return a ControlNet from a folder."""
    variant = getattr(request.config, "repo_variant", None)
    net = control_models.load_controlnet_folder(request.path, request.dtype, variant)
    return devices.to_memory_format(net, request.device)


@_register_loader(ModelType.ControlNet, ModelFormat.Checkpoint, _WITH_VAES)
def load_controlnet_checkpoint(request: LoadRequest) -> Any:
    """Return a ControlNet from a single file."""
    configs = single_files.configs_of(request.config.base)
    return devices.to_memory_format(
        control_models.load_controlnet_file(request.path, request.dtype, configs), request.device
    )


@_register_loader(ModelType.T2IAdapter, ModelFormat.Diffusers, _WITH_VAES)
def load_t2i_adapter(request: LoadRequest) -> Any:
    """Return a T2I-Adapter from a folder."""
    variant = getattr(request.config, "repo_variant", None)
    net = control_models.load_t2i_adapter_folder(request.path, request.dtype, variant)
    return devices.to_memory_format(net, request.device)


@_register_loader(ModelType.IPAdapter, ModelFormat.Checkpoint, _WITH_VAES)
@_register_loader(ModelType.IPAdapter, ModelFormat.InvokeAI, _WITH_VAES)
def load_ip_adapter(request: LoadRequest) -> Any:
    """Return an IP-Adapter from a file or a folder."""
    return ip_adapter.load(request.path, request.dtype)


@_register_loader(ModelType.LoRA, ModelFormat.LyCORIS, _WITH_VAES)
@_register_loader(ModelType.LoRA, ModelFormat.OMI, _WITH_VAES)
@_register_loader(ModelType.LoRA, ModelFormat.Diffusers, _WITH_VAES)
def load_lora(request: LoadRequest) -> Any:
    """Return a LoRA from a file or a folder."""
    return lora_files.load_lora(request.path, lora_keys.LAYOUT, request.dtype)


@_register_loader(ModelType.TextualInversion, ModelFormat.EmbeddingFile, _WITH_VAES)
@_register_loader(ModelType.TextualInversion, ModelFormat.EmbeddingFolder, _WITH_VAES)
def load_textual_inversion(request: LoadRequest) -> Any:
    """Return a textual inversion from a file or a folder."""
    return textual_inversion.load_textual_inversion(request.path)


def _vae(request: LoadRequest, folder: Path) -> Any:
    vae = load_kl_folder(folder, request.dtype, getattr(request.config, "repo_variant", None))
    return devices.to_memory_format(vae, request.device)


def _scheduler(config: dict[str, Any]) -> Any:
    """Return the model's own sampler, whose configuration is the basis of a run's sampler."""
    import diffusers.schedulers

    return getattr(diffusers.schedulers, config["_class_name"]).from_config(config)


def _preview_of(folder: Path) -> LatentColors | None:
    """Return a preview fitted to an autoencoder with unusual sizes, if it is small enough."""
    if not (folder / "config.json").is_file():
        return None
    if (
        read_json(folder / "config.json").get("block_out_channels") == _PUBLISHED_VAE
        or sum(file.stat().st_size for file in folder.iterdir()) > _SMALL_VAE
    ):
        return None
    vae, cpu = load_kl_folder(folder, torch.float32), torch.device("cpu")
    colors: LatentColors = preview.fit(lambda images: encode(vae, images, cpu))
    return colors


def _no_such_part(request: LoadRequest) -> ValueError:
    return ValueError(f"{request.config.name}: Stable Diffusion models have no part {request.submodel!r}")
