"""Parts of Stable Diffusion models as diffusers and transformers objects, from folders and single files."""

from pathlib import Path
from typing import Any

import torch

from invokeclone.components.autoencoders.load import load_kl_file, load_kl_folder
from invokeclone.components.autoencoders.vae import encode
from invokeclone.components.clip.load import load_open_clip_file, load_text_encoder_file, tokenizer
from invokeclone.engine import devices, preview
from invokeclone.engine.files import load_part, read_json, read_tensors
from invokeclone.engine.load_request import LoadRequest
from invokeclone.engine.loaders import loads
from invokeclone.engine.preview import LatentColors
from invokeclone.graph.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType

CONFIGS = Path(__file__).parent / "configs"
"""Per base a folder with the configurations of what its single files hold: sizes, and the published scheduler settings."""
SD1, SD2 = CONFIGS / "sd1", CONFIGS / "sd2"
UNET_PREFIX = "model.diffusion_model."
SD1_TEXT_PREFIX = "cond_stage_model.transformer."
SD2_TEXT_PREFIX = "cond_stage_model.model."
_FIRST_WEIGHT = f"{UNET_PREFIX}input_blocks.0.0.weight"
_CLASSES = {
    SubModelType.UNet: "diffusers.UNet2DConditionModel",
    SubModelType.TextEncoder: "transformers.CLIPTextModel",
    SubModelType.Tokenizer: "transformers.CLIPTokenizer",
}
_PUBLISHED_VAE = [128, 256, 512, 512]
_SMALL_VAE = 50 * 2**20
"""Bytes up to which an autoencoder of other sizes is read to fit a preview to it."""


def warm_up() -> None:
    """Import what the first image needs, which takes seconds."""
    import diffusers.models.autoencoders.autoencoder_kl
    import diffusers.models.unets.unet_2d_condition
    import diffusers.schedulers.scheduling_ddim
    import diffusers.schedulers.scheduling_euler_discrete  # noqa: F401
    import transformers

    _ = (transformers.CLIPTextModel, transformers.CLIPTokenizer)  # they are lazy


@loads(base=BaseModelType.StableDiffusion1, type=ModelType.Main, format=ModelFormat.Diffusers)
@loads(base=BaseModelType.StableDiffusion2, type=ModelType.Main, format=ModelFormat.Diffusers)
def load(request: LoadRequest) -> Any:
    """Return a part of a folder: unet, vae, text_encoder, tokenizer or scheduler."""
    match request.submodel:
        case SubModelType.UNet:
            unet = devices.lay_out(load_part(request, _CLASSES[SubModelType.UNet]), request.device)
            unet.latent_colors = _preview_of(request.path / "vae")
            return unet
        case SubModelType.VAE:
            return _vae(request, request.path / "vae")
        case SubModelType.TextEncoder | SubModelType.Tokenizer:
            return load_part(request, _CLASSES[request.submodel])
        case SubModelType.Scheduler:
            return _scheduler(request.path / "scheduler")
        case _:
            raise _no_such_part(request)


@loads(base=BaseModelType.StableDiffusion1, type=ModelType.Main, format=ModelFormat.Checkpoint)
def load_checkpoint(request: LoadRequest) -> Any:
    """Return a part of a single file."""
    match request.submodel:
        case SubModelType.UNet:
            return devices.lay_out(load_unet_file(request.path, request.dtype, SD1), request.device)
        case SubModelType.VAE:
            return devices.lay_out(load_kl_file(request.path, request.dtype, SD1), request.device)
        case SubModelType.TextEncoder:
            return load_text_encoder_file(
                request.path, request.dtype, SD1 / "text_encoder" / "config.json", SD1_TEXT_PREFIX
            )
        case SubModelType.Tokenizer:
            return tokenizer()
        case SubModelType.Scheduler:
            return _scheduler(SD1 / "scheduler")
        case _:
            raise _no_such_part(request)


@loads(base=BaseModelType.StableDiffusion1, type=ModelType.VAE, format=ModelFormat.Diffusers)
@loads(base=BaseModelType.StableDiffusion2, type=ModelType.VAE, format=ModelFormat.Diffusers)
def load_vae(request: LoadRequest) -> Any:
    """Return an autoencoder from a folder of its own."""
    return _vae(request, request.path)


@loads(base=BaseModelType.StableDiffusion1, type=ModelType.VAE, format=ModelFormat.Checkpoint)
@loads(base=BaseModelType.StableDiffusion2, type=ModelType.VAE, format=ModelFormat.Checkpoint)
def load_vae_checkpoint(request: LoadRequest) -> Any:
    """Return an autoencoder from a single file."""
    return devices.lay_out(load_kl_file(request.path, request.dtype, SD1), request.device)


def load_unet_file(path: Path, dtype: torch.dtype, configs: Path) -> Any:
    """Return the UNet of a checkpoint; whether it is an inpainting model follows from its first weight.

    Raises ValueError for a file without one.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    weights = read_tensors(path, [UNET_PREFIX])
    if _FIRST_WEIGHT not in weights:
        raise ValueError(f"{path.name} holds no UNet of Stable Diffusion: {_FIRST_WEIGHT} is missing")
    unet = UNet2DConditionModel.from_single_file(
        weights,
        config=str(configs),
        subfolder="unet",
        in_channels=weights[_FIRST_WEIGHT].shape[1],
        torch_dtype=dtype,
        local_files_only=True,
    )
    return unet.eval()


def load_sd2_text_encoder_file(path: Path, dtype: torch.dtype, configs: Path) -> Any:
    """Return the text encoder of a Stable Diffusion 2 checkpoint."""
    return load_open_clip_file(path, dtype, configs / "text_encoder" / "config.json", SD2_TEXT_PREFIX, projection=False)


def _vae(request: LoadRequest, folder: Path) -> Any:
    vae = load_kl_folder(folder, request.dtype, getattr(request.config, "repo_variant", None))
    return devices.lay_out(vae, request.device)


def _scheduler(folder: Path) -> Any:
    """Return the model's own sampler, whose settings are where those of a run begin."""
    import diffusers.schedulers

    config = read_json(folder / "scheduler_config.json")
    return getattr(diffusers.schedulers, config["_class_name"]).from_config(config)


def _preview_of(folder: Path) -> LatentColors | None:
    """Return a preview fitted to an autoencoder of other sizes than the published one, if it is small enough to be read."""
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
    return ValueError(f"{request.config.name}: a Stable Diffusion model has no part {request.submodel!r}")
