"""Stable Diffusion's pipeline: encode the prompt, prepare, denoise, decode."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from invokeclone.components.autoencoders import vae as autoencoder
from invokeclone.components.clip.encode import encode_prompt, skip_layers
from invokeclone.engine import denoise as loop
from invokeclone.engine import devices, preview
from invokeclone.engine.guidance import classifier_free_guidance, truncate_guidance
from invokeclone.engine.latents import check_finite
from invokeclone.engine.latents import noise as draw_noise
from invokeclone.engine.masks import change_mask
from invokeclone.engine.patches import seamless
from invokeclone.engine.schedules import discrete
from invokeclone.engine.schedules.discrete import DiscreteSchedule
from invokeclone.engine.schedules.interface import MaskHook
from invokeclone.families.stable_diffusion.attention import CrossAttention, cross_attention
from invokeclone.families.stable_diffusion.coarse import coarse_prediction
from invokeclone.families.stable_diffusion.conditioning import TextConditioning
from invokeclone.families.stable_diffusion.denoiser import Control, UNetDenoiser
from invokeclone.families.stable_diffusion.fields import FreeUConfig
from invokeclone.families.stable_diffusion.hidiffusion import HiDiffusion, HiDiffusionState, hidiffusion
from invokeclone.families.stable_diffusion.ip_adapter import ImagePrompt
from invokeclone.families.stable_diffusion.single_files import INPAINTING_CHANNELS

_LATENT_CHANNELS = 4
_HALF = 0.5


def encode(tokenizer: Any, text_encoder: Any, prompt: str, device: torch.device, skip: int = 0) -> torch.Tensor:
    """Return a prompt's embeddings (1, n * 77, width) on the CPU, without the last `skip` layers of the encoder.

    Raises ValueError for a prompt with a syntax error, and for SDXL's second text encoder.
    """
    if hasattr(text_encoder, "text_projection"):
        raise ValueError("this is SDXL's second text encoder: encode the prompt with SDXL's prompt node")
    with skip_layers(text_encoder, skip):
        return encode_prompt(tokenizer, text_encoder, prompt, device).cpu()


@dataclass
class DenoiseTask:
    """The inputs of a denoise run. Tensors may be on any device; latents and noise are (batch, 4, height, width)."""

    positive: TextConditioning
    negative: TextConditioning
    scheduler: str
    scheduler_config: Any
    steps: int
    noise: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    cfg_scale: float | list[float] = 7.5
    cfg_rescale: float = 0.0
    start: float = 0.0
    end: float = 1.0
    seeds: Sequence[int] = (0,)
    """One seed per row of the batch."""
    prediction_type: str | None = None
    """The prediction type of the UNet's record; None for that of the sampler's configuration."""
    keep_mask: torch.Tensor | None = None
    """Shape (batch or 1, 1, any height, any width), 1 where the image is kept."""
    gradient_mask: bool = False
    masked_latents: torch.Tensor | None = None
    """Latents of the image without its changing part, for inpainting models."""
    seamless_axes: Sequence[str] = ()
    free_u: FreeUConfig | None = None
    sequential: bool = False
    """Whether the UNet is called for the two prompts one after the other."""
    guidance_end: float = 1.0
    """Fraction of the steps after which the negative prompts are not used."""
    controls: Sequence[Control] = ()
    image_prompts: Sequence[ImagePrompt] = ()
    hidiffusion: HiDiffusion | None = None


def denoise(unet: Any, task: DenoiseTask, device: torch.device, on_step: loop.OnStep) -> torch.Tensor:
    """Return denoised latents (batch, 4, height, width) on the CPU, in the UNet's number format.

    `on_step` is called for each step and may end the run. Raises ValueError if latents and noise are both missing,
    or their sizes differ.
    """
    # 1. the schedule and the initial latents
    schedule, initial, latents, noise = prepare_run(unet, task, device)
    if schedule.first is None:
        return initial.cpu()
    # 2. the mask
    mask = _mask(unet, task, schedule, latents, noise, initial)
    # 3. the denoiser and its guidance
    positive, negative = conditionings(unet, task, len(initial), device)
    attention = None
    if positive.is_regional or negative.is_regional or task.image_prompts:
        images = [prompt.to(device, unet.dtype) for prompt in task.image_prompts]
        attention = CrossAttention(initial.shape[-2], initial.shape[-1], unet.dtype, device, images)
    state = None if task.hidiffusion is None else HiDiffusionState(unet, task.hidiffusion, task.seeds[0])
    controls = (
        task.controls if state is None else [*task.controls, state]
    )  # it resizes the residuals of the other controls
    extra = _extra_channels(unet, task, latents, initial)
    denoiser = UNetDenoiser(unet, extra, attention, controls, len(schedule.timesteps))
    if extra is None and attention is None and not controls:
        denoiser.coarse = coarse_prediction(unet, schedule.sampler)
    predict = classifier_free_guidance(
        denoiser,
        positive,
        negative,
        guidance_scales(task, schedule),
        rescale=task.cfg_rescale,
        sequential=task.sequential,
    )
    # 4. the loop
    threads = devices.limit_threads(unet, len(initial) * initial.shape[-2] * initial.shape[-1], device)
    colors = preview.using(getattr(unet, "latent_colors", None))
    with (
        seamless(unet, task.seamless_axes),
        _free_u(unet, task.free_u),
        cross_attention(unet, attention),
        hidiffusion(unet, state),
        colors,
        threads,
    ):
        return check_finite(loop.run(schedule, initial, predict, denoiser.counting(on_step), mask).cpu())


def prepare_run(
    unet: Any, task: DenoiseTask, device: torch.device
) -> tuple[DiscreteSchedule, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Return a task's schedule, initial latents, latents and noise, in the UNet's number format on `device`.

    Raises ValueError when latents and noise are both missing or differ in size.
    """
    if unet.config.in_channels not in (_LATENT_CHANNELS, INPAINTING_CHANNELS):
        raise ValueError(
            f"this model's UNet needs {unet.config.in_channels} channels (depth-to-image models need 5): "
            f"select a model for text to image or inpainting"
        )
    latents, noise = (None if t is None else t.to(device, unet.dtype) for t in (task.latents, task.noise))
    if latents is not None and noise is not None and latents.shape[1:] != noise.shape[1:]:
        raise ValueError(f"latents and noise differ in size: {list(latents.shape)} and {list(noise.shape)}")
    schedule = _schedule(task, device)
    return schedule, schedule.start(latents, noise), latents, noise


def conditionings(
    unet: Any, task: DenoiseTask, batch: int, device: torch.device
) -> tuple[TextConditioning, TextConditioning]:
    """Return the positive and the negative prompts for the UNet, `batch` rows each.

    Raises ValueError for prompts of another model.
    """
    task.positive.check_fits(unet.config, "positive")
    task.negative.check_fits(unet.config, "negative")
    positive, negative = (side.expand(batch).to(device, unet.dtype) for side in (task.positive, task.negative))
    return positive, negative


def _schedule(task: DenoiseTask, device: torch.device) -> DiscreteSchedule:
    sampler = discrete.create(
        task.scheduler, task.scheduler_config, prediction_type=task.prediction_type, seeds=task.seeds
    )
    return discrete.plan(sampler, task.steps, device, start=task.start, end=task.end, seeds=task.seeds)


def guidance_scales(task: DenoiseTask, schedule: DiscreteSchedule) -> float | list[float]:
    """Return a task's guidance scale, or that of each step."""
    return truncate_guidance(task.cfg_scale, -(-len(schedule.timesteps) // schedule.order), task.guidance_end)


def _mask(
    unet: Any,
    task: DenoiseTask,
    schedule: DiscreteSchedule,
    latents: torch.Tensor | None,
    noise: torch.Tensor | None,
    initial: torch.Tensor,
) -> MaskHook | None:
    if task.keep_mask is None:
        return None
    original = torch.zeros_like(initial) if latents is None else latents
    if noise is None:  # the latents are already noisy, but the kept part still needs noise
        rows = [draw_noise(seed, (1, *initial.shape[1:]), devices.CPU_DEVICE) for seed in task.seeds]
        noise = torch.cat(rows).to(initial)
    hook = schedule.mask(change_mask(task.keep_mask, initial), original, noise, gradient=task.gradient_mask)
    return _AfterLoopOnly(hook) if unet.config.in_channels == INPAINTING_CHANNELS else hook


@dataclass
class _AfterLoopOnly:
    """Mask of an inpainting model, whose input includes the mask: only the finished latents get the original back."""

    hook: MaskHook

    def before_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:  # noqa: ARG002
        """Return the latents unchanged."""
        return latents

    def after_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:  # noqa: ARG002
        """Return the latents unchanged."""
        return latents

    def after_loop(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the finished latents with the original in the kept part."""
        return self.hook.after_loop(latents)

    def preview(self, original: torch.Tensor) -> torch.Tensor:
        """Return the prediction unchanged."""
        return original


def _extra_channels(
    unet: Any, task: DenoiseTask, latents: torch.Tensor | None, initial: torch.Tensor
) -> torch.Tensor | None:
    """Return an inpainting model's additional channels: the mask (1: change) and the masked image's latents."""
    if unet.config.in_channels != INPAINTING_CHANNELS:
        return None
    if task.keep_mask is None:
        return torch.cat([torch.ones_like(initial[:, :1]), torch.zeros_like(initial)], dim=1)
    change = change_mask(task.keep_mask, initial).expand(len(initial), -1, -1, -1)
    if task.masked_latents is not None:
        masked = task.masked_latents.to(initial)
        if masked.shape[-2:] != initial.shape[-2:]:
            raise ValueError(
                f"the mask is for latents of {_sides(masked)}, but those to denoise are {_sides(initial)}: create it from an image "
                "of the generated size"
            )
        masked = masked.expand(len(initial), -1, -1, -1)
    else:
        original = torch.zeros_like(initial) if latents is None else latents
        masked = torch.where(1.0 - change < _HALF, torch.zeros_like(initial), original)
    return torch.cat([change, masked], dim=1)


def _sides(latents: torch.Tensor) -> str:
    return f"{latents.shape[-1]} x {latents.shape[-2]}"


@contextmanager
def _free_u(unet: Any, config: FreeUConfig | None) -> Iterator[None]:
    """Apply FreeU to a UNet inside the block, if a configuration is given."""
    if config is None:
        yield
        return
    unet.enable_freeu(s1=config.s1, s2=config.s2, b1=config.b1, b2=config.b2)
    try:
        yield
    finally:
        unet.disable_freeu()


def decode(
    vae: Any,
    latents: torch.Tensor,
    device: torch.device,
    *,
    fp32: bool = False,
    tile: int | None = None,
    seamless_axes: Sequence[str] = (),
) -> Image.Image:
    """Return the image of scaled latents.

    `tile` is the side of the tiles in pixels; 0 uses the autoencoder's own size and None disables tiling.
    """
    dtype = autoencoder.choose_dtype(device, fp32=fp32)
    with seamless(vae, seamless_axes):
        return autoencoder.tensor_to_image(autoencoder.decode(vae, latents, device, dtype, tile=tile))


def compensate_colors(pixels: torch.Tensor) -> torch.Tensor:
    """Return an image in -1..1 with the color shift of SDXL's autoencoder compensated."""
    return pixels * 1.015 - 0.002


def encode_image(
    vae: Any, pixels: torch.Tensor, device: torch.device, *, fp32: bool = False, tile: int | None = None
) -> torch.Tensor:
    """Return the scaled latents (1, 4, height / 8, width / 8) of an image (1, 3, height, width) in -1..1, on the CPU."""
    dtype = autoencoder.choose_dtype(device, fp32=fp32)
    return autoencoder.encode(vae, pixels, device, dtype, tile=tile).cpu()
