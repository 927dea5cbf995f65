"""Tiny models of every kind of Stable Diffusion, with the structure and the widths of text that the published ones have."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from invokeclone.families.stable_diffusion import single_files
from tests.tiny_checkpoints import clip_weights, open_clip_weights, unet_weights, vae_weights
from tests.tiny_models import noise_of

Weights = dict[str, torch.Tensor]

FOUR = {
    "block_out_channels": [32, 32, 64, 64],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "layers_per_block": 2,
}
LINEAR = {"use_linear_projection": True}
SD1: dict[str, Any] = {**FOUR, "cross_attention_dim": 768, "attention_head_dim": 8}
SD2: dict[str, Any] = {**FOUR, **LINEAR, "cross_attention_dim": 1024, "attention_head_dim": [1, 1, 1, 1]}
SIZES = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}
XL: dict[str, Any] = {
    **LINEAR,
    **SIZES,
    "block_out_channels": [32, 32, 64],
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
    "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 3],
    "cross_attention_dim": 2048,
    "attention_head_dim": [1, 1, 1],
    "projection_class_embeddings_input_dim": 6 * 256 + 12,
}
REFINER: dict[str, Any] = {
    **LINEAR,
    **SIZES,
    "block_out_channels": [32, 32, 64, 64],
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 2, 2],
    "cross_attention_dim": 1280,
    "attention_head_dim": [1, 1, 1, 1],
    "projection_class_embeddings_input_dim": 5 * 256 + 12,
}
VAE = {
    "block_out_channels": [32, 32, 64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_attention_heads": 1,
    "num_hidden_layers": 3,
    "vocab_size": 600,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
    "bos_token_id": 49406,
}


@dataclass(frozen=True)
class Kind:
    """One kind of model: which networks it has, and what its record states."""

    base: str
    unet: dict[str, Any]
    text: tuple[str, ...]
    """Parts that are text encoders."""
    prediction: str = "epsilon"
    variant: str = "normal"
    marks: Weights = field(default_factory=dict)
    """Further tensors in its files."""
    pipeline: str = "StableDiffusionPipeline"


def inpainting(unet: dict[str, Any]) -> dict[str, Any]:
    return unet | {"in_channels": 9}


EMPTY = torch.zeros(0)
XL_PIPELINE, XL_INPAINTING, INPAINTING = (
    "StableDiffusionXLPipeline", "StableDiffusionXLInpaintPipeline", "StableDiffusionInpaintPipeline",
)  # fmt: skip
KINDS = {
    "sd1": Kind("sd-1", SD1, ("text_encoder",)),
    "sd1 inpainting": Kind("sd-1", inpainting(SD1), ("text_encoder",), variant="inpaint", pipeline=INPAINTING),
    "sd2": Kind("sd-2", SD2, ("text_encoder",), "v_prediction"),
    "sd2 inpainting": Kind(
        "sd-2", inpainting(SD2), ("text_encoder",), "v_prediction", variant="inpaint", pipeline=INPAINTING
    ),
    "sdxl": Kind("sdxl", XL, ("text_encoder", "text_encoder_2"), pipeline=XL_PIPELINE),
    "sdxl v-prediction": Kind(
        "sdxl",
        XL,
        ("text_encoder", "text_encoder_2"),
        "v_prediction",
        marks={"v_pred": EMPTY, "ztsnr": EMPTY},
        pipeline=XL_PIPELINE,
    ),
    "sdxl inpainting": Kind(
        "sdxl", inpainting(XL), ("text_encoder", "text_encoder_2"), variant="inpaint", pipeline=XL_INPAINTING
    ),
    "refiner": Kind("sdxl-refiner", REFINER, ("text_encoder_2",), pipeline="StableDiffusionXLImg2ImgPipeline"),
}


def make_parts(kind: Kind) -> dict[str, Any]:
    """Return a model's networks with seeded random weights."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.set_num_threads(1)  # networks this small lose time to threads that wait for each other
    torch.manual_seed(0)
    parts = {"unet": UNet2DConditionModel(**kind.unet).eval(), "vae": AutoencoderKL(**VAE).eval()}
    return parts | {name: _text_encoder(kind, name) for name in kind.text}


def _text_encoder(kind: Kind, name: str) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    first = name == "text_encoder" and kind.base != "sd-2"
    config = CLIPTextConfig(**TEXT, hidden_act="quick_gelu" if first else "gelu", projection_dim=12)
    return (CLIPTextModel if name == "text_encoder" else CLIPTextModelWithProjection)(config).eval()


def _with_unused_layer(encoder: Any) -> Weights:
    """Return a text encoder's weights as OpenCLIP has them, whose last layer Stable Diffusion 2 does not use."""
    weights = open_clip_weights(encoder, single_files.SD2_TEXT_PREFIX)
    last = len(encoder.encoder.layers) - 1
    block = f"{single_files.SD2_TEXT_PREFIX}transformer.resblocks."
    copies = {
        n.replace(f"{block}{last}.", f"{block}{last + 1}."): 2 * v for n, v in weights.items() if f"{block}{last}." in n
    }
    extra = {f"{single_files.SD2_TEXT_PREFIX}logit_scale": torch.ones(())}
    return weights | copies | extra


_TEXT_WEIGHTS: dict[tuple[str, str], Callable[[Any], Weights]] = {
    ("sd-1", "text_encoder"): clip_weights,
    ("sd-2", "text_encoder"): _with_unused_layer,
    ("sdxl", "text_encoder"): lambda encoder: clip_weights(encoder, single_files.CLIP_L_PREFIX),
    ("sdxl", "text_encoder_2"): lambda encoder: open_clip_weights(encoder, single_files.CLIP_G_PREFIX),
    ("sdxl-refiner", "text_encoder_2"): lambda encoder: open_clip_weights(encoder, single_files.REFINER_CLIP_G_PREFIX),
}


def original_weights(kind: Kind, parts: dict[str, Any]) -> Weights:
    """Return a model's tensors as a published single file has them."""
    weights = unet_weights(parts["unet"]) | vae_weights(parts["vae"]) | kind.marks
    for name in kind.text:
        weights |= _TEXT_WEIGHTS[kind.base, name](parts[name])
    return {name: value.detach().contiguous().clone() for name, value in weights.items()}


def output_of(name: str, part: Any) -> torch.Tensor:
    """Return what a network makes of inputs that are always the same, in its own number format."""
    with torch.inference_mode():
        if name == "vae":
            return part.decode(part.encode(noise_of(3, 1, 3, 16, 16).to(part.dtype)).latent_dist.mean).sample
        if name != "unet":
            output = part(torch.arange(77)[None] * 7 % 600, output_hidden_states=True)
            pooled = getattr(output, "text_embeds", output[0])
            return torch.cat([output.hidden_states[-2].flatten(), output[0].flatten(), pooled.flatten()])
        config = part.config
        added = None
        if config.addition_embed_type:
            ids = (config.projection_class_embeddings_input_dim - 12) // 256
            added = {"text_embeds": noise_of(4, 1, 12), "time_ids": torch.arange(ids)[None].float() * 100}
            added = {key: value.to(part.dtype) for key, value in added.items()}
        latents, text = noise_of(1, 1, config.in_channels, 8, 8), noise_of(2, 1, 5, config.cross_attention_dim)
        return part(latents.to(part.dtype), 500, text.to(part.dtype), added_cond_kwargs=added).sample
