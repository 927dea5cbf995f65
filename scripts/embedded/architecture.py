"""Small networks of Stable Diffusion 1's architecture, and their export as a diffusers folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from invokeclone.families.stable_diffusion.coarse import TRAINED_SIDE

from .text import TOKENS

if TYPE_CHECKING:
    from pathlib import Path

LATENT_SCALE = 0.18215  # Stable Diffusion 1's constant; the autoencoder is whitened so that it is exact
TEXT_WIDTH = 128
LARGEST_SIDE = 32  # of latents: the images of the training have at most 256²


@dataclass
class Networks:
    """The three trained networks and the tokenizer they were trained with."""

    vae: AutoencoderKL
    text: CLIPTextModel
    unet: UNet2DConditionModel
    tokenizer: CLIPTokenizer


def build_vae() -> AutoencoderKL:
    """Build the autoencoder: 8x downsampling, 4 latent channels, about 0.7 M parameters."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=256,
        scaling_factor=LATENT_SCALE,
    )
    with torch.no_grad():  # A small posterior from the start: otherwise the first minutes of training are spent on it.
        vae.quant_conv.weight[4:] *= 0.1
        vae.quant_conv.bias[4:] = -6.0
    return vae


def build_text(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Build the text encoder: 3 layers of width 128."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def build_unet() -> UNet2DConditionModel:
    """Build the denoiser: about 4.2 M parameters, cross-attention on the middle two of four levels."""
    unet = UNet2DConditionModel(
        sample_size=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 96, 112),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    unet.register_to_config(**{TRAINED_SIDE: LARGEST_SIDE})
    return unet


def build_scheduler() -> DDIMScheduler:
    """Build the noise schedule that the model is trained with and its folder names."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def build_networks(tokenizer: CLIPTokenizer) -> Networks:
    """Build all networks with fresh weights from torch's current seed."""
    return Networks(build_vae(), build_text(tokenizer), build_unet(), tokenizer)


def load_networks(folder: Path) -> Networks:
    """Load a finished pipeline folder's networks in single precision, and its tokenizer."""
    networks = build_networks(CLIPTokenizer.from_pretrained(folder / "tokenizer"))
    for network, name in ((networks.vae, "vae"), (networks.text, "text_encoder"), (networks.unet, "unet")):
        network.load_state_dict(type(network).from_pretrained(folder / name).state_dict())
    return networks


def parameter_count(network: torch.nn.Module) -> int:
    """Count a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def export(networks: Networks, folder: Path) -> None:
    """Write the networks as an fp16 StableDiffusionPipeline folder, leaving the given ones untouched."""
    fresh = build_networks(networks.tokenizer)
    for name in ("vae", "text", "unet"):
        getattr(fresh, name).load_state_dict(getattr(networks, name).state_dict())
        getattr(fresh, name).half().eval()
    pipeline = StableDiffusionPipeline(
        vae=fresh.vae,
        text_encoder=fresh.text,
        tokenizer=networks.tokenizer,
        unet=fresh.unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    _write_slow_tokenizer(networks.tokenizer, folder / "tokenizer")
    # Otherwise transformers would load the text encoder in half precision beside a single precision UNet.
    config = folder / "text_encoder" / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"float16"', '"float32"'), encoding="utf-8")
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)


def _write_slow_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Add the two files of the original format, which newer transformers no longer write."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(state["vocab"], ensure_ascii=False) + "\n", encoding="utf-8")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
