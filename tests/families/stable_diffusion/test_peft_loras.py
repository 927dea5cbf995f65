"""LoRAs with PEFT's configuration: what the model computes with them is what it computes in PEFT (tests/data/peft_loras)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from invokeclone.engine.lora.apply import apply_loras
from invokeclone.engine.lora.files import load_lora
from invokeclone.engine.lora.matching import LoRAPatch
from invokeclone.families.stable_diffusion.lora_keys import LAYOUT
from scripts.make_peft_loras import FOLDER, hidden_state, prediction
from tests.families.stable_diffusion.conftest import CPU

EXPECTED = FOLDER / "expected.safetensors"
LAYER = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"


def compute_with_lora(path: Path, model: Any, part: str) -> torch.Tensor:
    """Return what a UNet or text encoder computes with a LoRA."""
    lora = LoRAPatch("peft", load_lora(path, LAYOUT, torch.float32).parts[part], 1.0)
    with apply_loras(model, [lora], CPU, optional_prefix="text_model_"):
        return prediction(model) if part == "unet" else hidden_state(model)


@pytest.mark.parametrize("name", ["plain", "rslora", "dora"])
def test_files_of_diffusers(name: str, sd1_parts: dict[str, Any]):
    expected, path = load_file(EXPECTED), FOLDER / f"{name}.safetensors"
    results = (
        compute_with_lora(path, sd1_parts["unet"], "unet"),
        compute_with_lora(path, sd1_parts["text_encoder"], "clip"),
    )
    assert torch.allclose(results[0], expected[f"{name}.unet"], atol=2e-5)
    assert torch.allclose(results[1], expected[f"{name}.text"], atol=2e-5)
    assert not torch.allclose(prediction(sd1_parts["unet"]), results[0], atol=1e-2)


def test_a_folder_of_peft(sd1_parts: dict[str, Any]):
    result = compute_with_lora(FOLDER / "folder", sd1_parts["unet"], "unet")
    assert torch.allclose(result, load_file(EXPECTED)["folder.unet"], atol=2e-5)


def scale_with(tmp_path: Path, **changes: Any) -> float:
    """Return the scale of one layer, of rank 2, of a file with other settings."""
    with safe_open(FOLDER / "plain.safetensors", "pt") as file:
        config = json.loads(file.metadata()["lora_adapter_metadata"])
    config |= {f"unet.{name}": value for name, value in changes.items()}
    save_file(
        load_file(FOLDER / "plain.safetensors"),
        tmp_path / "x.safetensors",
        {"lora_adapter_metadata": json.dumps(config)},
    )
    layers = load_lora(tmp_path / "x.safetensors", LAYOUT, torch.float32).parts["unet"]
    return layers[LAYER.removeprefix("unet.").replace(".", "_")].scale


@pytest.mark.parametrize(
    ("patterns", "scale"),
    [
        ({}, 3),
        ({"to_q": 8}, 4),
        ({"q": 8}, 3),
        ({"attn1.to_q": 8, "to_q": 10}, 4),
        ({"attn2.to_q": 8}, 3),
        (dict.fromkeys([r"^down_blocks\.1\.attentions\.0.*attn1\.to_q$"], 8), 4),
        ({"down_blocks.*to_q": 8}, 4),
        ({"up_blocks.*to_q": 8}, 3),
        ({".*" * 50 + "x": 8}, 3),
        ({"(": 8}, 3),
        ({"to_q": "many"}, 1),
        ("no dictionary", 3),
    ],
)
def test_alphas_of_single_layers(patterns: Any, scale: float, tmp_path: Path):
    assert scale_with(tmp_path, alpha_pattern=patterns) == scale


@pytest.mark.parametrize("alpha", [None, "6", True, [6]])
def test_an_invalid_alpha_is_ignored(alpha: Any, tmp_path: Path):
    assert scale_with(tmp_path, alpha_pattern={}, lora_alpha=alpha) == 1


def test_alphas_in_the_file_take_precedence(tmp_path: Path):
    tensors = load_file(FOLDER / "plain.safetensors") | {f"{LAYER}.alpha": torch.tensor(14.0)}
    with safe_open(FOLDER / "plain.safetensors", "pt") as file:
        save_file(tensors, tmp_path / "x.safetensors", file.metadata())
    layers = load_lora(tmp_path / "x.safetensors", LAYOUT, torch.float32).parts["unet"]
    assert layers[LAYER.removeprefix("unet.").replace(".", "_")].scale == 7
