"""Measure denoising: our runs against diffusers' pipelines.

Run by `scripts/benchmark.py --only denoising`. Networks are those of the families with fewer and narrower layers,
and random weights. Times are CPU time; compared runs alternate, with the same weights, noise, embeddings and number format.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
SIZE, STEPS, REPEATS = 256, 4, 7
"""Side of the image in pixels, steps of a run, and compared runs of each side."""
EULER = {
    "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "steps_offset": 1, "timestep_spacing": "leading",
}  # fmt: skip
"""Configuration of Stable Diffusion's sampler."""
FLUX = {
    "num_layers": 4, "num_single_layers": 8, "attention_head_dim": 64, "num_attention_heads": 8,
    "joint_attention_dim": 256, "pooled_projection_dim": 128, "guidance_embeds": True, "axes_dims_rope": (16, 24, 24),
}  # fmt: skip
SD3 = {
    "sample_size": 64, "num_layers": 8, "attention_head_dim": 64, "num_attention_heads": 8, "joint_attention_dim": 256,
    "caption_projection_dim": 512, "pooled_projection_dim": 192, "pos_embed_max_size": 64, "out_channels": 16,
}  # fmt: skip
Run = Callable[[], Any]


def compare() -> dict[str, float]:
    """Return the CPU time of a run in ms by us and by diffusers, and their ratio, for each family."""
    import torch

    torch.set_num_threads(1)
    result = {}
    for name, make in FAMILIES.items():
        torch.manual_seed(0)
        ours, theirs = make()
        difference = float((ours() - theirs()).abs().max())
        if difference > 1e-3:
            raise SystemExit(f"{name}: the latents differ by {difference}")
        times, ratio = alternate(ours, theirs)
        result |= {f"{name}_ms": times[0], f"{name}_diffusers_ms": times[1], f"{name}_ratio": ratio}
    return result


def alternate(first: Run, second: Run) -> tuple[tuple[float, float], float]:
    """Return the median CPU times of two runs in ms, and the median of their ratios."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(REPEATS):
        for run, spent in zip((first, second), times, strict=True):
            started = time.process_time()
            run()
            spent.append(1000 * (time.process_time() - started))
    ratios = (a / b for a, b in zip(*times, strict=True))
    return (statistics.median(times[0]), statistics.median(times[1])), statistics.median(ratios)


def make_unet(width: int, **changes: Any) -> Any:
    """Return a UNet of Stable Diffusion 1, or of SDXL with `changes`, with narrower levels."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    levels = {
        "block_out_channels": (64, 128, 256, 256),
        "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    }
    return UNet2DConditionModel(**{**levels, "cross_attention_dim": width, "sample_size": SIZE // 8, **changes}).eval()


def _initial(noise: Any) -> Any:
    """Return what diffusers' pipelines, which multiply it by init_noise_sigma, are to be given."""
    from invokeclone.engine.schedules import discrete

    sampler = discrete.create("euler", EULER)
    sampler.set_timesteps(STEPS)
    return sampler.add_noise(noise * 0, noise, sampler.timesteps[:1]) / sampler.init_noise_sigma


def _sd1() -> tuple[Run, Run]:
    import torch
    from diffusers import StableDiffusionPipeline

    from invokeclone.engine.devices import to_memory_format
    from invokeclone.engine.schedules import discrete
    from invokeclone.families.stable_diffusion import pipeline
    from invokeclone.families.stable_diffusion.conditioning import BasicConditioningInfo, TextConditioning

    net = to_memory_format(make_unet(256), "cpu")
    texts, noise = [torch.randn(1, 77, 256) for _ in range(2)], torch.randn(1, 4, SIZE // 8, SIZE // 8)
    diffusers = StableDiffusionPipeline(
        None, None, None, net, discrete.create("euler", EULER), None, None, requires_safety_checker=False
    )
    diffusers.set_progress_bar_config(disable=True)

    def ours() -> Any:
        sides = [TextConditioning.of_prompts([(BasicConditioningInfo(text), None)]) for text in texts]
        task = pipeline.DenoiseTask(*sides, "euler", EULER, STEPS, noise=noise)
        return pipeline.denoise(net, task, torch.device("cpu"), lambda _: None)

    def theirs() -> Any:
        return diffusers(
            prompt_embeds=texts[0], negative_prompt_embeds=texts[1], latents=_initial(noise), guidance_scale=7.5,
            num_inference_steps=STEPS, width=SIZE, height=SIZE, output_type="latent",
        ).images  # fmt: skip

    return ours, theirs


def _sdxl() -> tuple[Run, Run]:
    import torch
    from diffusers import StableDiffusionXLPipeline

    from invokeclone.engine.devices import to_memory_format
    from invokeclone.engine.schedules import discrete
    from invokeclone.families.stable_diffusion import pipeline
    from invokeclone.families.stable_diffusion.conditioning import SDXLConditioningInfo, TextConditioning

    net = to_memory_format(
        make_unet(
            256, block_out_channels=(64, 128, 256), transformer_layers_per_block=(1, 2, 4), attention_head_dim=(1, 2, 4),
            down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
            up_block_types=(*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=32, projection_class_embeddings_input_dim=128 + 192,
        ),
        "cpu",
    )  # fmt: skip
    texts, pooled = [torch.randn(1, 77, 256) for _ in range(2)], [torch.randn(1, 128) for _ in range(2)]
    sizes, noise = torch.tensor([[SIZE, SIZE, 0, 0, SIZE, SIZE]]), torch.randn(1, 4, SIZE // 8, SIZE // 8)
    diffusers = StableDiffusionXLPipeline(
        None, None, None, None, None, net, discrete.create("euler", EULER), add_watermarker=False
    )
    diffusers.set_progress_bar_config(disable=True)

    def ours() -> Any:
        infos = [SDXLConditioningInfo(*side, sizes) for side in zip(texts, pooled, strict=True)]
        sides = [TextConditioning.of_prompts([(info, None)]) for info in infos]
        task = pipeline.DenoiseTask(*sides, "euler", EULER, STEPS, noise=noise, cfg_scale=5.0)
        return pipeline.denoise(net, task, torch.device("cpu"), lambda _: None)

    def theirs() -> Any:
        return diffusers(
            prompt_embeds=texts[0], negative_prompt_embeds=texts[1], pooled_prompt_embeds=pooled[0],
            negative_pooled_prompt_embeds=pooled[1], latents=_initial(noise), guidance_scale=5.0,
            num_inference_steps=STEPS, width=SIZE, height=SIZE, output_type="latent",
        ).images  # fmt: skip

    return ours, theirs


def _flux() -> tuple[Run, Run]:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

    from invokeclone.components.flux.tokens import pack, unpack
    from invokeclone.engine.flow_inputs import FlowInputs
    from invokeclone.engine.schedules import flow
    from invokeclone.families.flux import pipeline
    from invokeclone.families.flux.conditioning import FluxConditioning

    net = FluxTransformer2DModel(**FLUX).eval()
    text, pooled, noise = torch.randn(1, 128, 256), torch.randn(1, 128), torch.randn(1, 16, SIZE // 8, SIZE // 8)
    levels = flow.shift_levels(flow.even_levels(STEPS), flow.shift_by_tokens(SIZE * SIZE // 256))
    diffusers = FluxPipeline(FlowMatchEulerDiscreteScheduler(shift=1.0), None, None, None, None, None, net)
    diffusers.set_progress_bar_config(disable=True)

    def ours() -> Any:
        inputs = FlowInputs(SIZE, SIZE, STEPS, noise=noise)
        task = pipeline.FluxDenoiseTask(inputs, FluxConditioning(text, pooled), None, guidance=3.5)
        return pipeline.denoise(net, task, torch.device("cpu"), lambda _: None)

    def theirs() -> Any:
        packed = diffusers(
            prompt_embeds=text, pooled_prompt_embeds=pooled, latents=pack(noise), sigmas=levels[:-1],
            num_inference_steps=STEPS, guidance_scale=3.5, width=SIZE, height=SIZE, output_type="latent",
        ).images  # fmt: skip
        return unpack(packed, SIZE // 8, SIZE // 8)

    return ours, theirs


def _sd3() -> tuple[Run, Run]:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    from invokeclone.engine.flow_inputs import FlowInputs
    from invokeclone.families.sd3 import pipeline
    from invokeclone.families.sd3.conditioning import SD3ConditioningInfo

    net = SD3Transformer2DModel(**SD3).eval()
    prompts = [
        SD3ConditioningInfo(
            torch.randn(1, 64), torch.randn(1, 77, 64), torch.randn(1, 128), torch.randn(1, 77, 128),
            torch.randn(1, 128, 256),
        )
        for _ in range(2)
    ]  # fmt: skip
    joined = [pipeline.join(info, net.config, "positive") for info in prompts]
    noise = torch.randn(1, 16, SIZE // 8, SIZE // 8)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    diffusers = StableDiffusion3Pipeline(net, scheduler, None, None, None, None, None, None, None)
    diffusers.set_progress_bar_config(disable=True)

    def ours() -> Any:
        inputs = FlowInputs(SIZE, SIZE, STEPS, cfg_scale=4.0, noise=noise)
        return pipeline.denoise(net, prompts[0], prompts[1], inputs, torch.device("cpu"), lambda _: None)

    def theirs() -> Any:
        return diffusers(
            prompt_embeds=joined[0].embeds, pooled_prompt_embeds=joined[0].pooled,
            negative_prompt_embeds=joined[1].embeds, negative_pooled_prompt_embeds=joined[1].pooled,
            latents=noise, sigmas=[1.0, 0.75, 0.5, 0.25], guidance_scale=4.0, width=SIZE, height=SIZE,
            output_type="latent",
        ).images  # fmt: skip

    return ours, theirs


def _cogview4() -> tuple[Run, Run]:
    import torch
    from diffusers import CogView4Pipeline, FlowMatchEulerDiscreteScheduler
    from diffusers.models.transformers.transformer_cogview4 import CogView4Transformer2DModel

    from invokeclone.engine.flow_inputs import FlowInputs
    from invokeclone.families.cogview4 import pipeline
    from invokeclone.families.cogview4.conditioning import CogView4ConditioningInfo

    net = CogView4Transformer2DModel(
        num_layers=8, attention_head_dim=64, num_attention_heads=8, text_embed_dim=256, time_embed_dim=128,
        condition_dim=64, pos_embed_max_size=64, sample_size=64, rope_axes_dim=(64, 64),
    ).eval()  # fmt: skip
    prompts = [torch.randn(1, tokens, 256) for tokens in (128, 16)]
    noise = torch.randn(1, 16, SIZE // 8, SIZE // 8)
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_shift=0.25, max_shift=0.75, base_image_seq_len=256, max_image_seq_len=4096, use_dynamic_shifting=True,
        time_shift_type="linear",
    )  # fmt: skip
    diffusers = CogView4Pipeline(None, None, None, net, scheduler)
    diffusers.set_progress_bar_config(disable=True)

    def ours() -> Any:
        inputs = FlowInputs(SIZE, SIZE, STEPS, cfg_scale=4.0, noise=noise)
        sides = [CogView4ConditioningInfo(prompt) for prompt in prompts]
        return pipeline.denoise(net, sides[0], sides[1], inputs, torch.device("cpu"), lambda _: None)

    def theirs() -> Any:
        return diffusers(
            prompt_embeds=prompts[0], negative_prompt_embeds=prompts[1], latents=noise,
            timesteps=[1000, 750, 500, 250], sigmas=[1.0, 0.75, 0.5, 0.25], guidance_scale=4.0, width=SIZE, height=SIZE,
            output_type="latent",
        ).images  # fmt: skip

    return ours, theirs


def _flux2() -> tuple[Run, Run]:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
    from diffusers.pipelines.flux2 import pipeline_flux2_klein

    from invokeclone.components.autoencoders.kl_flux2 import statistics_of
    from invokeclone.engine.flow_inputs import FlowInputs
    from invokeclone.families.flux2 import pipeline
    from invokeclone.families.flux2.conditioning import Flux2Prompt
    from tests.tiny_transformers import make_flux2_vae

    net = Flux2Transformer2DModel(
        in_channels=128, num_layers=3, num_single_layers=6, attention_head_dim=64, num_attention_heads=8,
        joint_attention_dim=256, timestep_guidance_channels=256, axes_dims_rope=(16, 16, 16, 16), guidance_embeds=False,
    ).eval()  # fmt: skip
    vae, texts = make_flux2_vae(), [torch.randn(1, 128, 256) for _ in range(2)]
    noise = torch.randn(1, 32, SIZE // 8, SIZE // 8)
    pipeline_flux2_klein.compute_empirical_mu = lambda **_: 2.02  # InvokeAI's shift, which does not depend on the size
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    diffusers = pipeline_flux2_klein.Flux2KleinPipeline(scheduler, vae, None, None, net, is_distilled=False)
    diffusers.set_progress_bar_config(disable=True)

    def ours() -> Any:
        inputs = FlowInputs(SIZE, SIZE, STEPS, cfg_scale=4.0, noise=noise)
        task = pipeline.Flux2Task(inputs, *map(Flux2Prompt, texts), statistics_of(vae))
        return pipeline.denoise(net, task, torch.device("cpu"), lambda _: None)

    def theirs() -> Any:
        return diffusers(
            prompt_embeds=texts[0], negative_prompt_embeds=texts[1], width=SIZE, height=SIZE, guidance_scale=4.0,
            num_inference_steps=STEPS, latents=torch.nn.functional.pixel_unshuffle(noise, 2), output_type="latent",
        ).images  # fmt: skip

    return ours, theirs


def _z_image() -> tuple[Run, Run]:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
    from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline

    from invokeclone.engine.flow_inputs import FlowInputs
    from invokeclone.families.z_image import pipeline
    from invokeclone.families.z_image.conditioning import ZImageConditioning

    net = ZImageTransformer2DModel(
        in_channels=16, dim=512, n_layers=8, n_refiner_layers=1, n_heads=8, n_kv_heads=8, cap_feat_dim=256,
        axes_dims=[16, 24, 24], axes_lens=[512, 64, 64],
    ).eval()  # fmt: skip
    for name, parameter in net.named_parameters():
        if name.endswith("pad_token"):
            torch.nn.init.normal_(parameter, std=0.3)
    texts, noise = [torch.randn(1, tokens, 256) for tokens in (128, 32)], torch.randn(1, 16, SIZE // 8, SIZE // 8)
    diffusers = ZImagePipeline(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), None, None, None, net)
    diffusers.set_progress_bar_config(disable=True)

    def ours() -> Any:
        inputs = FlowInputs(SIZE, SIZE, STEPS, cfg_scale=4.0, noise=noise)
        task = pipeline.ZImageDenoiseTask(inputs, *map(ZImageConditioning, texts))
        return pipeline.denoise(net, task, torch.device("cpu"), lambda _: None)

    def theirs() -> Any:
        return diffusers(
            prompt_embeds=[texts[0][0]], negative_prompt_embeds=[texts[1][0]], latents=noise, width=SIZE, height=SIZE,
            sigmas=[1.0, 0.75, 0.5, 0.25], num_inference_steps=STEPS, guidance_scale=3.0, output_type="latent",
        ).images  # fmt: skip

    return ours, theirs


FAMILIES: Mapping[str, Callable[[], tuple[Run, Run]]] = {
    "sd1": _sd1, "sdxl": _sdxl, "flux": _flux, "flux2": _flux2, "z_image": _z_image, "sd3": _sd3, "cogview4": _cogview4,
}  # fmt: skip
