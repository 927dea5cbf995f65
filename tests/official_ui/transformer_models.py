"""Tiny FLUX.2 klein and Z-Image as people have them: transformer, Qwen3 encoder and VAE apart, and a LoRA."""

from pathlib import Path

KLEIN, KLEIN_ENCODER, KLEIN_VAE = "Tiny klein", "Tiny Qwen3 of klein", "Tiny FLUX.2 VAE"
Z_IMAGE, Z_IMAGE_ENCODER, Z_IMAGE_LORA = "Tiny Z-Image", "Tiny Qwen3 of Z-Image", "Tiny Z-Image style"
_ENCODER = {"type": "qwen3_encoder", "base": "any", "format": "qwen3_encoder", "variant": "qwen3_4b"}
KINDS = {
    KLEIN: {"type": "main", "base": "flux2", "format": "checkpoint", "variant": "klein_4b"},
    KLEIN_ENCODER: _ENCODER,
    KLEIN_VAE: {"type": "vae", "base": "flux2", "format": "checkpoint"},
    Z_IMAGE: {"type": "main", "base": "z-image", "format": "checkpoint", "variant": "turbo"},
    Z_IMAGE_ENCODER: _ENCODER,
    Z_IMAGE_LORA: {"type": "lora", "base": "z-image", "format": "lycoris"},
}
"""What has to be stated with files whose sizes nobody publishes."""


def path_of(folder: Path, name: str) -> Path:
    return folder / (name if KINDS[name] is _ENCODER else f"{name}.safetensors")


def write_all(folder: Path) -> None:
    """Write every model of KINDS."""
    import torch
    from safetensors.torch import save_file

    from tests import tiny_transformers as tiny
    from tests.tiny_models import noise_of

    for name, (width, layers) in {KLEIN_ENCODER: (16, 28), Z_IMAGE_ENCODER: (32, 3)}.items():
        tokenizer, qwen3 = tiny.make_qwen3(width, layers)
        qwen3.save_pretrained(folder / name / "text_encoder")
        tokenizer.save_pretrained(folder / name / "tokenizer")
    transformers = {
        KLEIN: tiny.original_flux2_names(tiny.make_flux2_transformer().state_dict()),
        Z_IMAGE: tiny.original_z_image_names(tiny.make_z_image_transformer().to(torch.bfloat16).state_dict()),
    }
    layer = "diffusion_model.layers.0.attention.qkv"
    lora = {f"{layer}.lora_A.weight": noise_of(1, 2, 32), f"{layer}.lora_B.weight": noise_of(2, 96, 2)}
    for name, tensors in {**transformers, KLEIN_VAE: tiny.make_flux2_vae().state_dict(), Z_IMAGE_LORA: lora}.items():
        save_file({key: value.contiguous() for key, value in tensors.items()}, path_of(folder, name))
