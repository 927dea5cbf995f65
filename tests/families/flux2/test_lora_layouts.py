"""LoRA files of FLUX.2 in every layout: the same model as with the changes added to Black Forest Labs' weights by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.engine.lora.apply import apply_loras
from invokeclone.engine.lora.files import load_lora
from invokeclone.engine.lora.keys import read_name
from invokeclone.engine.lora.matching import LoRAPatch
from invokeclone.families.flux2.lora_keys import LAYOUT, TEXT_ENCODER, TRANSFORMER
from invokeclone.families.flux2.single_files import NAMES
from tests.tiny_transformers import make_flux2_transformer, original_flux2_names

CPU = torch.device("cpu")
RANK, WEIGHT = 2, 0.7
SWAPPED = "final_layer.adaLN_modulation.1"
Tensors = dict[str, torch.Tensor]


def random_tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.fixture(scope="module")
def transformer() -> Any:
    return make_flux2_transformer()


@pytest.fixture(scope="module")
def original(transformer: Any) -> Tensors:
    return original_flux2_names(transformer.state_dict())


@pytest.fixture(scope="module")
def pairs(original: Tensors) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return two matrices, up and down, for every linear layer of Black Forest Labs' names."""
    layers = [name.removesuffix(".weight") for name in original if name.endswith(".weight")]
    shapes = {layer: original[f"{layer}.weight"].shape for layer in layers}
    return {
        layer: (0.1 * random_tensor(rows, RANK, seed=number), random_tensor(RANK, columns, seed=-number))
        for number, (layer, (rows, columns)) in enumerate(shapes.items())
    }


@torch.inference_mode()
def predict(transformer: Any, weights: Tensors | None = None) -> torch.Tensor:
    inputs = {
        "hidden_states": random_tensor(1, 12, 128),
        "encoder_hidden_states": random_tensor(1, 5, 48),
        "timestep": torch.tensor([0.5]),
        "img_ids": torch.arange(48).reshape(12, 4),
        "txt_ids": torch.zeros(5, 4),
        "return_dict": False,
    }
    result: torch.Tensor = torch.func.functional_call(transformer, weights or {}, kwargs=inputs)[0]
    return result


def layout(kind: str, pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Tensors:
    """Return the tensors of a file. Files with diffusers' names have the parts of a stack apart."""
    tensors: Tensors = {}
    for layer, (up, down) in pairs.items():
        match kind:
            case "kohya":
                name = f"lora_unet_{layer.replace('.', '_')}"
                tensors |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
                tensors[f"{name}.alpha"] = torch.tensor(float(RANK))
            case "bfl" | "bfl peft":
                name = {"bfl": "diffusion_model.", "bfl peft": "base_model.model."}[kind] + layer
                tensors |= {f"{name}.lora_B.weight": up, f"{name}.lora_A.weight": down}
            case _:
                modules = NAMES.module_names(layer)
                rows = torch.cat(up.chunk(2)[::-1]) if layer == SWAPPED else up
                endings = ("lora.up", "lora.down") if kind == "diffusers" else ("lora_B", "lora_A")
                for module, part in zip(modules, rows.chunk(len(modules)), strict=True):
                    name = {"diffusers": f"transformer.{module}", "bare": module}.get(
                        kind, f"base_model.model.{module}"
                    )
                    tensors |= {f"{name}.{endings[0]}.weight": part, f"{name}.{endings[1]}.weight": down}
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("kind", ["kohya", "bfl", "bfl peft", "diffusers", "diffusers peft", "bare"])
def test_every_layout_changes_the_same_layers(
    kind: str, transformer: Any, original: Tensors, pairs: dict[str, Any], tmp_path: Path
) -> None:
    save_file(layout(kind, pairs), tmp_path / "lora.safetensors")
    parts = load_lora(tmp_path / "lora.safetensors", LAYOUT, torch.float32).parts
    changed = {
        name: value + WEIGHT * torch.matmul(*pairs[name.removesuffix(".weight")]) if name.endswith(".weight") else value
        for name, value in original.items()
    }
    expected = predict(transformer, dict(NAMES.to_diffusers(changed)))
    with apply_loras(transformer, [LoRAPatch("style", parts[TRANSFORMER], WEIGHT)], CPU):
        result = predict(transformer)
    assert not torch.allclose(result, predict(transformer), atol=1e-1)
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "name",
    [
        "text_encoder.model.layers.0.mlp.up_proj.lora_A.weight",
        "text_encoder.model.language_model.layers.0.mlp.up_proj.lora_A.weight",
        "text_encoder.language_model.model.layers.0.mlp.up_proj.lora_A.weight",
        "lora_te_model_layers_0_mlp_up_proj.lora_down.weight",
        "lora_te_model_language_model_layers_0_mlp_up_proj.lora_down.weight",
        "lora_te_layers_0_mlp_up_proj.lora_down.weight",
    ],
)
def test_layers_of_text_encoders_have_one_name(name: str) -> None:
    parsed = read_name(name, LAYOUT)
    assert parsed is not None
    assert (parsed.part, parsed.layer, parsed.kind) == (TEXT_ENCODER, "layers_0_mlp_up_proj", "lora_down.weight")
