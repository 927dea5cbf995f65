"""Measure ways to run networks against the usual one: memory layouts, fused projections, and optional settings.

Run by `scripts/benchmark.py --only switches`. Times are CPU time; compared runs alternate. The settings are measured with the
embedded model, whose images are compared too.
"""

import copy
from collections.abc import Callable
from typing import Any

from benchmark_denoising import EULER, FLUX, ROOT, SD3, SIZE, alternate, make_unet

OPTIONS: dict[str, dict[str, Any]] = {
    "pyramid_2": {"pyramid_attention_broadcast": 2},
    "pyramid_4": {"pyramid_attention_broadcast": 4},
    "guidance_end_0.6": {"guidance_end": 0.6},
    "sliced_max": {"attention_type": "sliced", "attention_slice_size": "max"},
}
PROMPTS = ("a red circle", "a cat", "a house at night", "a blue square and a green triangle")


def switches() -> dict[str, float]:
    """Return the CPU time of calls with fused projections or channels last, relative to calls without."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    latents, text = torch.randn(2, 4, SIZE // 8, SIZE // 8), torch.randn(2, 77, 256)
    unet, tokens = make_unet(256), torch.randn(1, SIZE * SIZE // 256, 64)
    vae = AutoencoderKL(
        block_out_channels=(32, 64, 128, 128), down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4, layers_per_block=2, latent_channels=4,
    ).eval()  # fmt: skip
    sd3, flux = SD3Transformer2DModel(**SD3).eval(), FluxTransformer2DModel(**FLUX).eval()
    flux_inputs = {
        "hidden_states": tokens, "encoder_hidden_states": torch.randn(1, 128, 256), "timestep": torch.tensor([0.5]),
        "pooled_projections": torch.randn(1, 128), "guidance": torch.tensor([3.5]), "txt_ids": torch.zeros(128, 3),
        "img_ids": torch.zeros(tokens.shape[1], 3),
    }  # fmt: skip
    sd3_inputs = torch.randn(2, 16, SIZE // 8, SIZE // 8), torch.randn(2, 205, 256), torch.randn(2, 192), torch.ones(2)
    with torch.inference_mode():
        return {
            "unet_channels_last": _channels_last(unet, lambda net: net(latents, 500, text)),
            "vae_channels_last": _channels_last(vae, lambda net: net.decode(latents[:1])),
            "sd1_fused_qkv": _fused(unet, lambda net: net(latents, 500, text)),
            "sd3_fused_qkv": _fused(sd3, lambda net: net(*sd3_inputs)),
            "flux_fused_qkv": _fused(flux, lambda net: net(**flux_inputs)),
        }


def _fused(net: Any, call: Callable[[Any], Any]) -> float:
    """Return the time with fused projections of queries, keys and values, relative to separate ones."""
    fused = copy.deepcopy(net)
    fused.fuse_qkv_projections()
    return alternate(lambda: call(fused), lambda: call(net))[1]


def _channels_last(net: Any, call: Callable[[Any], Any]) -> float:
    import torch

    changed = copy.deepcopy(net).to(memory_format=torch.channels_last)
    return alternate(lambda: call(changed), lambda: call(net))[1]


def options() -> dict[str, float]:
    """Return, for each option, the CPU time of 20 steps at 256x256, relative to that of a run without, and the image's distance.

    The distance is the mean difference of the levels (0 to 255) of all pixels, over several prompts.
    """
    import numpy as np
    import torch
    from diffusers import StableDiffusionPipeline

    from invokeclone.engine.devices import to_memory_format
    from invokeclone.engine.optimizations import apply_optimizations
    from invokeclone.families.stable_diffusion import pipeline
    from invokeclone.families.stable_diffusion.conditioning import BasicConditioningInfo, TextConditioning
    from invokeclone.kit.config.settings import Settings

    torch.set_num_threads(1)
    folder = ROOT / "invokeclone" / "families" / "stable_diffusion" / "embedded" / "model"
    parts = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
    unet, cpu = to_memory_format(parts.unet.eval(), "cpu"), torch.device("cpu")

    def side(prompt: str) -> Any:
        embeds = pipeline.encode(parts.tokenizer, parts.text_encoder, prompt, cpu)
        return TextConditioning.of_prompts([(BasicConditioningInfo(embeds), None)])

    def images(**settings: Any) -> np.ndarray:
        """Return the levels of the images of all prompts, (prompts, height, width, 3)."""
        changed, arrays = Settings(**settings), []
        for number, prompt in enumerate(PROMPTS):
            noise = torch.randn(1, 4, SIZE // 8, SIZE // 8, generator=torch.Generator().manual_seed(number))
            task = pipeline.DenoiseTask(
                side(prompt), side(""), "euler", EULER, 20, noise=noise, cfg_scale=4.0,
                guidance_end=changed.guidance_end,
            )  # fmt: skip
            with apply_optimizations(unet, changed, cpu):
                latents = pipeline.denoise(unet, task, cpu, lambda _: None)
            arrays.append(np.asarray(pipeline.decode(parts.vae, latents, cpu), np.float32))
        return np.stack(arrays)

    result, usual = {}, images()
    for name, settings in OPTIONS.items():
        result[f"{name}_ratio"] = alternate(lambda settings=settings: images(**settings), images)[1]
        result[f"{name}_distance"] = float(np.abs(images(**settings) - usual).mean())
    return result
