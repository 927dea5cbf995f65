"""Stable Diffusion 1 (and what shares its parts): load, encode, denoise, decode.

It puts the engine's pieces together in this family's way. Nodes, names and files of pictures it refuses to know.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from invokeclone.engine import autoencoder, devices, diffusion, preview, samplers, text
from invokeclone.engine.conditioning import TextGuide
from invokeclone.engine.guidance import Guidance, UNetPredictor
from invokeclone.engine.loaders import LoadRequest, loads
from invokeclone.engine.patches import free_u, seamless, skipped_layers
from invokeclone.engine.preview import LatentColors
from invokeclone.families.sd1 import single_file
from invokeclone.graph.model_fields import FreeUConfig
from invokeclone.graph.taxonomy import BaseModelType, ModelFormat, ModelType, SubModelType
from invokeclone.kit import log

logger = log.get("families.sd1")
INPAINTING_CHANNELS = 9
"""Latents, mask, and latents of the masked picture."""
_USUAL_VAE = [128, 256, 512, 512]
_SMALL_VAE = 50 * 2**20
"""Bytes up to which an unusual autoencoder is read just to know its colours."""


def warm_up() -> None:
    """Import what the first picture needs, which takes seconds."""
    import diffusers.models.autoencoders.autoencoder_kl
    import diffusers.models.unets.unet_2d_condition
    import diffusers.schedulers.scheduling_ddim
    import diffusers.schedulers.scheduling_euler_discrete  # noqa: F401
    import transformers

    _ = (transformers.CLIPTextModel, transformers.CLIPTokenizer)  # they are lazy
    _hush()


def _hush() -> None:
    """Keep progress bars out of the log."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


# --- load -----------------------------------------------------------------------------------------------------------------


@loads(base=BaseModelType.StableDiffusion1, type=ModelType.Main, format=ModelFormat.Diffusers)
@loads(base=BaseModelType.StableDiffusion2, type=ModelType.Main, format=ModelFormat.Diffusers)
def load(request: LoadRequest) -> Any:
    """Return one submodel of a diffusers folder: unet, vae, text_encoder, tokenizer or scheduler."""
    _hush()
    folder = request.path / str(request.submodel)
    match request.submodel:
        case SubModelType.UNet:
            unet = devices.lay_out(_unet(folder, request.dtype), request.device)
            unet.latent_colors = _colors(request.path / "vae")
            return unet
        case SubModelType.VAE:
            return devices.lay_out(_vae(folder, request.dtype), request.device)
        case SubModelType.TextEncoder:
            return _text_encoder(folder, request.dtype)
        case SubModelType.Tokenizer:
            from transformers import CLIPTokenizer

            return CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        case SubModelType.Scheduler:
            return _scheduler(folder)
        case _:
            raise ValueError(f"a Stable Diffusion 1 model has no part {request.submodel!r}")


@loads(base=BaseModelType.StableDiffusion1, type=ModelType.Main, format=ModelFormat.Checkpoint)
def load_checkpoint(request: LoadRequest) -> Any:
    """Return one submodel of a single file."""
    _hush()
    match request.submodel:
        case SubModelType.UNet:
            return devices.lay_out(single_file.unet(request.path, request.dtype).eval(), request.device)
        case SubModelType.VAE:
            return devices.lay_out(single_file.vae(request.path, request.dtype).eval(), request.device)
        case SubModelType.TextEncoder:
            return single_file.text_encoder(request.path, request.dtype)
        case SubModelType.Tokenizer:
            return single_file.tokenizer()
        case SubModelType.Scheduler:
            scheduler = _scheduler(single_file.FOLDER / "scheduler")
            if prediction := getattr(request.config, "prediction_type", None):
                scheduler.register_to_config(prediction_type=str(prediction))
            return scheduler
        case _:
            raise ValueError(f"a Stable Diffusion 1 model has no part {request.submodel!r}")


@loads(base=BaseModelType.StableDiffusion1, type=ModelType.VAE, format=ModelFormat.Diffusers)
@loads(base=BaseModelType.StableDiffusion2, type=ModelType.VAE, format=ModelFormat.Diffusers)
def load_vae(request: LoadRequest) -> Any:
    """Return an autoencoder from a folder of its own."""
    _hush()
    return devices.lay_out(_vae(request.path, request.dtype), request.device)


@loads(base=BaseModelType.StableDiffusion1, type=ModelType.VAE, format=ModelFormat.Checkpoint)
@loads(base=BaseModelType.StableDiffusion2, type=ModelType.VAE, format=ModelFormat.Checkpoint)
def load_vae_checkpoint(request: LoadRequest) -> Any:
    """Return an autoencoder from a single file."""
    _hush()
    return devices.lay_out(single_file.vae(request.path, request.dtype).eval(), request.device)


def _unet(folder: Path, dtype: torch.dtype) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel.from_pretrained(folder, torch_dtype=dtype, **_files(folder, dtype)).eval()


def _vae(folder: Path, dtype: torch.dtype) -> Any:
    if _read_json(folder / "config.json").get("_class_name") == "AutoencoderTiny":
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny as Model
    else:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL as Model
    return Model.from_pretrained(folder, torch_dtype=dtype, **_files(folder, dtype)).eval()


def _text_encoder(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import CLIPTextModel

    return CLIPTextModel.from_pretrained(folder, dtype=dtype, **_files(folder, dtype)).eval()


def _scheduler(folder: Path) -> Any:
    import diffusers.schedulers

    config = _read_json(folder / "scheduler_config.json")
    return getattr(diffusers.schedulers, config["_class_name"]).from_config(config)


def _files(folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Return which of a folder's files to read: half precision where that is wanted, or all there is; nothing from outside."""
    half = any(folder.glob("*.fp16.*"))
    whole = any(
        file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin") and ".fp16" not in file.name
    )
    safe = any(folder.glob("*.safetensors"))
    wanted = half and (dtype == torch.float16 or not whole)
    return {"variant": "fp16" if wanted else None, "use_safetensors": safe, "local_files_only": True}


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _colors(folder: Path) -> LatentColors | None:
    """Return the colours of an autoencoder that is not the family's usual one, if it is small enough to look."""
    try:
        config = _read_json(folder / "config.json")
    except FileNotFoundError:
        return None
    if (
        config.get("block_out_channels") == _USUAL_VAE
        or sum(file.stat().st_size for file in folder.iterdir()) > _SMALL_VAE
    ):
        return None
    vae = _vae(folder, torch.float32)
    cpu = torch.device("cpu")
    colors: LatentColors = preview.fit(lambda pictures: autoencoder.encode(vae, pictures, cpu))
    return colors


# --- encode ---------------------------------------------------------------------------------------------------------------


def encode(tokenizer: Any, text_encoder: Any, prompt: str, device: torch.device, skip: int = 0) -> torch.Tensor:
    """Return a prompt's embeddings (1, n * 77, width) on the CPU, without the last `skip` layers of the encoder."""
    with skipped_layers(text_encoder, skip):
        return text.encode(tokenizer, text_encoder, prompt, device).cpu()


# --- denoise --------------------------------------------------------------------------------------------------------------


@dataclass
class DenoiseTask:
    """All that a denoise run is told. Tensors may lie anywhere; latents and noise are (1, 4, height, width)."""

    positive: TextGuide
    negative: TextGuide
    scheduler: str
    scheduler_config: Any
    steps: int
    noise: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    cfg_scale: float | list[float] = 7.5
    cfg_rescale: float = 0.0
    start: float = 0.0
    end: float = 1.0
    seed: int = 0
    keep_mask: torch.Tensor | None = None
    """(1, 1, any height, any width), 1 where the picture stays as it is."""
    gradient_mask: bool = False
    masked_latents: torch.Tensor | None = None
    """Of the picture without what is to change, for inpainting models."""
    seamless_axes: list[str] | None = None
    free_u: FreeUConfig | None = None
    sequential: bool = False


def denoise(
    unet: Any,
    task: DenoiseTask,
    device: torch.device,
    on_step: diffusion.OnStep,
    predictor: Callable[..., UNetPredictor] = UNetPredictor,
) -> torch.Tensor:
    """Return denoised latents (1, 4, height, width) in float32 on the CPU. `on_step` hears of each step and may stop it.

    Raises ValueError for tasks that make no sense: neither latents nor noise, sizes that differ, an inpainting model without mask.
    """
    # 1. everything to the device; latents stay in float32, whatever the model computes in
    latents, noise = (None if t is None else t.to(device, torch.float32) for t in (task.latents, task.noise))
    if latents is not None and noise is not None and latents.shape[-2:] != noise.shape[-2:]:
        raise ValueError(f"latents and noise differ in size: {list(latents.shape)} and {list(noise.shape)}")
    # 2. the schedule, and what it begins with
    scheduler = samplers.create(task.scheduler, task.scheduler_config)
    schedule = samplers.plan(scheduler, task.steps, device, start=task.start, end=task.end, seed=task.seed)
    begun = diffusion.start(schedule, latents, noise)
    # 3. what stays as it is
    inpainting = _inpainting(task, latents, noise, device)
    extra = _beside(unet, task, latents, begun, device)
    # 4. the loop
    guidance = Guidance(task.positive, task.negative, task.cfg_scale, task.cfg_rescale, task.sequential)
    predict = predictor(unet, guidance, unet.dtype, device, extra)
    colors = getattr(unet, "latent_colors", None)
    regions = predict.regions(*begun.shape[-2:])
    threads = devices.fitting_threads(unet, begun.shape[-2] * begun.shape[-1], device)
    with seamless(unet, task.seamless_axes or []), free_u(unet, task.free_u), regions, preview.using(colors), threads:
        return diffusion.run(schedule, begun, predict, on_step, inpainting).float().cpu()


def _inpainting(
    task: DenoiseTask, latents: torch.Tensor | None, noise: torch.Tensor | None, device: torch.device
) -> diffusion.Inpainting | None:
    if task.keep_mask is None:
        return None
    if latents is None:
        raise ValueError("a denoise mask needs latents: without a picture there is nothing to keep")
    if noise is None:  # the latents have theirs already; what is kept needs some of its own
        noise = torch.randn(latents.shape, generator=torch.Generator("cpu").manual_seed(task.seed)).to(device)
    keep = _fit_mask(task.keep_mask, latents, device)
    return diffusion.Inpainting(keep, latents, noise, task.gradient_mask)


def _beside(
    unet: Any, task: DenoiseTask, latents: torch.Tensor | None, begun: torch.Tensor, device: torch.device
) -> torch.Tensor | None:
    """Return what an inpainting model sees beside the latents: the mask (1: change) and the masked picture."""
    if unet.config.in_channels != INPAINTING_CHANNELS:
        return None
    if task.keep_mask is None:
        change, masked = torch.ones_like(begun[:, :1]), torch.zeros_like(begun)
    else:
        change = 1.0 - _fit_mask(task.keep_mask, begun, device)
        if task.masked_latents is not None:
            masked = task.masked_latents.to(device, torch.float32)
        else:
            masked = (latents if latents is not None else torch.zeros_like(begun)) * (change < 0.5)  # noqa: PLR2004 - half
    return torch.cat([change, masked], dim=1)


def _fit_mask(mask: torch.Tensor, latents: torch.Tensor, device: torch.device) -> torch.Tensor:
    mask = mask.reshape(1, 1, *mask.shape[-2:]).to(device, torch.float32)
    if mask.shape[-2:] == latents.shape[-2:]:
        return mask
    return torch.nn.functional.interpolate(mask, size=latents.shape[-2:], mode="bilinear", align_corners=False)


# --- decode ---------------------------------------------------------------------------------------------------------------


def decode(
    vae: Any,
    latents: torch.Tensor,
    device: torch.device,
    *,
    fp32: bool = False,
    tile: int | None = None,
    seamless_axes: list[str] | None = None,
) -> Image.Image:
    """Return the picture of scaled latents. `tile`: side of the tiles in pixels, 0 for the autoencoder's own, None: no tiles."""
    with seamless(vae, seamless_axes or []):
        return autoencoder.picture_of(autoencoder.decode(vae, latents, device, fp32=fp32, tile=tile))


def encode_image(
    vae: Any,
    image: Image.Image,
    device: torch.device,
    *,
    fp32: bool = False,
    tile: int | None = None,
    seamless_axes: list[str] | None = None,
) -> torch.Tensor:
    """Return the scaled latents (1, 4, height / 8, width / 8) of a picture, in float32 on the CPU; the way back of `decode`."""
    with seamless(vae, seamless_axes or []):
        return autoencoder.encode(vae, autoencoder.pixels_of(image), device, fp32=fp32, tile=tile).cpu()
