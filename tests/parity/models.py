"""The tiny Stable Diffusion models of the parity cases, made with weights that follow from names and shapes."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.parity.weights import certain, fill, tensor

VOCABULARY = Path(__file__).parent / "clip_tokenizer"
END = 1049
CROSS = ["CrossAttnDownBlock2D"] * 3
UNET = {
    "sample_size": 64,
    "out_channels": 4,
    "block_out_channels": (32, 64, 64, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 8,
    "down_block_types": (*CROSS, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
}
XL_UNET = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 8,
    "transformer_layers_per_block": 1,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
FULL_UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 64, 128, 128),
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
"""Has all module names of Stable Diffusion 1.5."""

PUBLISHED_SAMPLER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def make(folder: Path) -> None:
    """Write the models' folders."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    _stable_diffusion(folder / "p-sd15", 768)
    _stable_diffusion(folder / "p-sd15-inpaint", 768, in_channels=9)
    stable_diffusion_xl(folder / "p-sdxl", 2048)
    stable_diffusion_xl(folder / "p-refiner", 1280, refiner=True)
    _stable_diffusion(folder / "p-sd21", 1024, prediction="v_prediction")
    shutil.copytree(folder / "p-sd15", folder / "p-sd15-full", ignore=shutil.ignore_patterns("unet"))
    unet = UNet2DConditionModel(**FULL_UNET)
    fill(unet, salt="p-sd15-full/unet").save_pretrained(folder / "p-sd15-full" / "unet")
    _write_published_model(folder)
    _controls(folder)
    _image_prompts(folder)


def _stable_diffusion(folder: Path, width: int, in_channels: int = 4, prediction: str = "epsilon") -> None:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.schedulers.scheduling_pndm import PNDMScheduler
    from transformers import CLIPTextModel

    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
        skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False, prediction_type=prediction,
    )  # fmt: skip
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel(**UNET, in_channels=in_channels, cross_attention_dim=width),
        "vae": _vae(0.18215),
        "text_encoder": CLIPTextModel(text_config(width)),
        "tokenizer": make_tokenizer(),
    }
    _fill(parts, folder.name)
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionPipeline(**parts, scheduler=scheduler, **none).save_pretrained(folder)
    copy_vocabulary(folder)


def stable_diffusion_xl(folder: Path, width: int, *, refiner: bool = False) -> None:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
        steps_offset=1, timestep_spacing="leading",
    )  # fmt: skip
    time_ids = 5 if refiner else 6
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel(
            **XL_UNET, cross_attention_dim=width, projection_class_embeddings_input_dim=time_ids * 32 + 1280
        ),
        "vae": _vae(0.13025),
        "text_encoder": None if refiner else CLIPTextModel(text_config(768)),
        "tokenizer": None if refiner else make_tokenizer(),
        "text_encoder_2": CLIPTextModelWithProjection(text_config(1280)),
        "tokenizer_2": make_tokenizer(),
    }
    _fill(parts, folder.name)
    StableDiffusionXLPipeline(**parts, scheduler=scheduler).save_pretrained(folder)
    copy_vocabulary(folder)


def _fill(parts: dict[str, Any], name: str) -> None:
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if parts.get(part) is not None:
            fill(parts[part], salt=f"{name}/{part}")
    certain(parts["vae"])


def _vae(scaling_factor: float) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 32, 32, 32), layers_per_block=1,
        norm_num_groups=8, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=512, scaling_factor=scaling_factor,
    )  # fmt: skip


def text_config(width: int) -> Any:
    """Return the configuration of a CLIP text encoder."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=1050, hidden_size=width, intermediate_size=width, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=width, bos_token_id=END - 1,
        eos_token_id=END, pad_token_id=END,
    )  # fmt: skip


def make_tokenizer() -> Any:
    """Return CLIP's tokenizer with the cases' vocabulary."""
    from transformers import CLIPTokenizer

    end = "<|endoftext|>"
    return CLIPTokenizer(
        str(VOCABULARY / "vocab.json"), str(VOCABULARY / "merges.txt"), model_max_length=77,
        unk_token=end, bos_token="<|startoftext|>", eos_token=end, pad_token=end,
    )  # fmt: skip


def copy_vocabulary(folder: Path) -> None:
    """Write the vocabulary's own files into the folders of CLIP's tokenizers."""
    for tokenizer in folder.glob("tokenizer*"):
        for file in ("vocab.json", "merges.txt"):
            shutil.copy(VOCABULARY / file, tokenizer / file)


def _write_published_model(folder: Path) -> None:
    """Write p-sd15 with the sampler's settings as the published model has them: defaults are not stated."""
    shutil.copytree(folder / "p-sd15", folder / "p-sd15-published")
    file = folder / "p-sd15-published" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(PUBLISHED_SAMPLER))


def _controls(folder: Path) -> None:
    """Write ControlNets of p-sd15 and p-sdxl, and a T2I-Adapter."""
    import torch
    from diffusers.models.adapter import T2IAdapter
    from diffusers.models.controlnets.controlnet import ControlNetModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    for name in ("sd15", "sdxl"):
        unet = UNet2DConditionModel.from_pretrained(folder / f"p-{name}" / "unet")
        net = fill(ControlNetModel.from_unet(unet), salt=f"p-controlnet-{name}")
        with torch.no_grad():
            for weight in (*net.controlnet_down_blocks.parameters(), *net.controlnet_mid_block.parameters()):
                weight.mul_(0.5)
        net.save_pretrained(folder / f"p-controlnet-{name}")
    adapter = T2IAdapter(channels=[32, 64, 64, 64], num_res_blocks=1, adapter_type="full_adapter")
    fill(adapter, salt="t2i").save_pretrained(folder / "p-t2i-sd15")


def _image_prompts(folder: Path) -> None:
    """Write an image encoder, and IP-Adapters of p-sd15 in the layout of the published ones."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=224, patch_size=32,
        projection_dim=1024,
    )  # fmt: skip
    encoder = fill(CLIPVisionModelWithProjection(vision), salt="vision")
    encoder.save_pretrained(folder / "IP Adapter SD1.5 Image Encoder")
    unet = UNet2DConditionModel.from_pretrained(folder / "p-sd15" / "unet")
    save_file(_ip_adapter(unet, plus=False), folder / "p-ip-sd15.safetensors")
    save_file(_ip_adapter(unet, plus=True), folder / "p-ip-sd15-plus.safetensors")


def _ip_adapter(unet: Any, *, plus: bool) -> dict[str, Any]:
    """Return an IP-Adapter's tensors; `plus`: with a resampler of 16 tokens instead of a linear projection to four."""
    import torch

    counted = itertools.count(1)

    def noise(*shape: int, scale: float = 0.4) -> torch.Tensor:
        return tensor(f"noise {next(counted)}", shape, scale)

    width = 768
    if plus:
        weights = {f"image_proj.{name}": value for name, value in _resampler(noise, width).items()}
    else:
        weights = {
            "image_proj.proj.weight": noise(4 * width, 1024),
            "image_proj.proj.bias": noise(4 * width),
            "image_proj.norm.weight": torch.ones(width),
            "image_proj.norm.bias": torch.zeros(width),
        }
    for number, name in enumerate(unet.attn_processors):
        if ".attn2." in name:
            features = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            weights[f"ip_adapter.{number}.to_k_ip.weight"] = noise(features, width)
            weights[f"ip_adapter.{number}.to_v_ip.weight"] = noise(features, width, scale=1.0)
    return weights


def _resampler(noise: Callable[..., Any], width: int) -> dict[str, Any]:
    import torch

    weights = {
        "latents": noise(1, 16, width),
        "proj_in.weight": noise(width, 32),
        "proj_in.bias": noise(width),
        "proj_out.weight": noise(width, width),
        "proj_out.bias": noise(width),
    }
    norms = ["norm_out"]
    for layer in range(4):
        attention, feed_forward = f"layers.{layer}.0", f"layers.{layer}.1"
        norms += [f"{attention}.norm1", f"{attention}.norm2", f"{feed_forward}.0"]
        weights[f"{attention}.to_q.weight"] = noise(width, width)
        weights[f"{attention}.to_kv.weight"] = noise(2 * width, width)
        weights[f"{attention}.to_out.weight"] = noise(width, width)
        weights[f"{feed_forward}.1.weight"] = noise(4 * width, width)
        weights[f"{feed_forward}.3.weight"] = noise(width, 4 * width)
    for norm in norms:
        weights[f"{norm}.weight"], weights[f"{norm}.bias"] = torch.ones(width), torch.zeros(width)
    return weights
