"""LoRAs of Stable Diffusion under the names of all trainers."""

import pytest

from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.identify import identify

FACTS = {"key": "k", "hash": "h", "path": "p", "file_size": 1, "name": "n", "source": "s", "source_type": "path"}
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
FLAT = LAYER.replace(".", "_")


def base_and_format(path):
    config = identify(ModelFiles(path), FACTS, {}, allow_unknown=True)
    return config.type, config.base, config.format


@pytest.mark.parametrize(("width", "base"), [(768, "sd-1"), (1024, "sd-2"), (2048, "sdxl")])
@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"lora_unet_{FLAT}.lora_down.weight", f"lora_unet_{FLAT}.lora_up.weight"),
        (f"unet.{LAYER}.lora_A.weight", f"unet.{LAYER}.lora_B.weight"),
        (f"unet.{LAYER}.lora.down.weight", f"unet.{LAYER}.lora.up.weight"),
        (
            f"unet.{LAYER.removesuffix('.to_k')}.processor.to_k_lora.down.weight",
            f"unet.{LAYER.removesuffix('.to_k')}.processor.to_k_lora.up.weight",
        ),
    ],
)
def test_low_rank_matrices(make, down, up, width, base):
    shapes = {down: (4, width), up: (320, 4)}
    assert base_and_format(make.tensors("x.safetensors", shapes)) == ("lora", base, "lycoris")
    folder = make.tensors("folder/pytorch_lora_weights.safetensors", shapes).parent
    assert base_and_format(folder) == ("lora", base, "diffusers")


def test_full_weight_differences(make):
    path = make.tensors("x.safetensors", {f"lora_unet_{FLAT}.diff": (320, 768), f"lora_unet_{FLAT}.diff_b": (320,)})
    assert base_and_format(path) == ("lora", "sd-1", "lycoris")
