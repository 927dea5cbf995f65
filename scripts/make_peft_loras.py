"""Write tests/data/peft_loras: LoRAs saved by PEFT and diffusers, and the tiny model's outputs with them.

PEFT is not a dependency of this package: `pip install --no-deps --target FOLDER peft`, then run this with FOLDER on
PYTHONPATH.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.tiny_models import make_parts, make_unet, noise_of

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "peft_loras"
UNET: dict[str, Any] = {
    "r": 2,
    "lora_alpha": 6,
    "target_modules": ["to_q", "to_k", "conv1", "proj_in"],
    "rank_pattern": {"mid_block.attentions.0.transformer_blocks.0.attn2.to_k": 4},
    "alpha_pattern": {"attn1.to_q": 1, "down_blocks.*conv1": 3},
}
TEXT: dict[str, Any] = {
    "r": 2,
    "lora_alpha": 5,
    "target_modules": ["q_proj", "fc1"],
    "alpha_pattern": {"encoder.layers.1.mlp.fc1": 2},
}
VARIANTS: dict[str, dict[str, Any]] = {"plain": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}


def fill(model: torch.nn.Module, seed: int) -> None:
    """Fill a model's adapter with seeded random weights."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    model.eval()


def prediction(unet: Any) -> torch.Tensor:
    """Return the prediction of a UNet for fixed inputs."""
    with torch.inference_mode():
        output: torch.Tensor = unet(noise_of(1), torch.tensor(500), noise_of(2, 1, 5, 32)).sample
        return output


def hidden_state(text_encoder: Any) -> torch.Tensor:
    """Return the hidden state of a text encoder for a fixed text."""
    with torch.inference_mode():
        output: torch.Tensor = text_encoder(torch.tensor([[512, 3, 4, 513]])).last_hidden_state
        return output


def main() -> None:
    """Write the files."""
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig, get_peft_model, inject_adapter_in_model
    from peft.utils import get_peft_model_state_dict

    FOLDER.mkdir(parents=True, exist_ok=True)
    expected: dict[str, torch.Tensor] = {}
    for name, extra in VARIANTS.items():
        unet, text_encoder = make_unet(), make_parts()["text_encoder"]
        configs = LoraConfig(**UNET, **extra), LoraConfig(**TEXT, **extra)
        for seed, (model, config) in enumerate(zip((unet, text_encoder), configs, strict=True), 1):
            inject_adapter_in_model(config, model)
            fill(model, seed)
        expected |= {f"{name}.unet": prediction(unet), f"{name}.text": hidden_state(text_encoder)}
        layers = [convert_state_dict_to_diffusers(get_peft_model_state_dict(model)) for model in (unet, text_encoder)]
        StableDiffusionPipeline.save_lora_weights(
            FOLDER,
            unet_lora_layers=layers[0],
            text_encoder_lora_layers=layers[1],
            weight_name=f"{name}.safetensors",
            unet_lora_adapter_metadata=configs[0].to_dict(),
            text_encoder_lora_adapter_metadata=configs[1].to_dict(),
        )
    wrapped = get_peft_model(make_unet(), LoraConfig(**UNET, use_rslora=True))
    fill(wrapped, 3)
    expected["folder.unet"] = prediction(wrapped.base_model.model)
    wrapped.save_pretrained(FOLDER / "folder")
    (FOLDER / "folder" / "README.md").unlink(missing_ok=True)
    save_file({name: value.contiguous() for name, value in expected.items()}, FOLDER / "expected.safetensors")


if __name__ == "__main__":
    main()
