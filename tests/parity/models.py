"""The tiny Stable Diffusion models of the parity cases, made with weights that follow from names and shapes."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.parity.weights import certain, fill

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
    _stable_diffusion(folder / "p-sd21", 1024, prediction="v_prediction")
    shutil.copytree(folder / "p-sd15", folder / "p-sd15-full", ignore=shutil.ignore_patterns("unet"))
    unet = UNet2DConditionModel(**FULL_UNET)
    fill(unet, salt="p-sd15-full/unet").save_pretrained(folder / "p-sd15-full" / "unet")
    _published(folder)


def _stable_diffusion(folder: Path, width: int, in_channels: int = 4, prediction: str = "epsilon") -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.schedulers.scheduling_pndm import PNDMScheduler
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    end = "<|endoftext|>"
    text = CLIPTextConfig(
        vocab_size=1050, hidden_size=width, intermediate_size=width, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=width, bos_token_id=END - 1,
        eos_token_id=END, pad_token_id=END,
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(16, 32, 32, 32), layers_per_block=1,
        norm_num_groups=8, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=512, scaling_factor=0.18215,
    )  # fmt: skip
    scheduler = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
        skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False, prediction_type=prediction,
    )  # fmt: skip
    parts: dict[str, Any] = {
        "unet": UNet2DConditionModel(**UNET, in_channels=in_channels, cross_attention_dim=width),
        "vae": vae,
        "text_encoder": CLIPTextModel(text),
        "tokenizer": CLIPTokenizer(
            str(VOCABULARY / "vocab.json"), str(VOCABULARY / "merges.txt"), model_max_length=77,
            unk_token=end, bos_token="<|startoftext|>", eos_token=end, pad_token=end,
        ),
    }  # fmt: skip
    for name in ("unet", "vae", "text_encoder"):
        fill(parts[name], salt=f"{folder.name}/{name}")
    certain(vae)
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    StableDiffusionPipeline(**parts, scheduler=scheduler, **none).save_pretrained(folder)
    for file in ("vocab.json", "merges.txt"):
        shutil.copy(VOCABULARY / file, folder / "tokenizer" / file)


def _published(folder: Path) -> None:
    """Write p-sd15 with the sampler's settings as the published model has them: defaults are not stated."""
    shutil.copytree(folder / "p-sd15", folder / "p-sd15-published")
    file = folder / "p-sd15-published" / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(PUBLISHED_SAMPLER))
