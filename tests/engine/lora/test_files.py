"""LoRA files of all layouts, and broken ones."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.engine.lora.files import load_lora
from invokeclone.engine.lora.keys import KeyLayout
from invokeclone.engine.lora.layers import LoRA

LAYOUT = KeyLayout(
    prefixes=(("lora_unet_", "unet"), ("unet.", "unet"), ("lora_te_", "text"), ("text_encoder.", "text")),
    default_part="unet",
    rename=lambda layer: layer.replace("input_", "down_"),
)
UP, DOWN = torch.randn(4, 2, generator=torch.Generator().manual_seed(1)), torch.arange(6.0).reshape(2, 3)
LAYER, FLAT = "down_blocks.0.attn1.to_q", "down_blocks_0_attn1_to_q"
TEXT, FLAT_TEXT = "text_model.layers.0.self_attn.q_proj", "text_model_layers_0_self_attn_q_proj"

PAIRS = {
    "kohya": (f"lora_unet_{FLAT}.lora_up.weight", f"lora_unet_{FLAT}.lora_down.weight"),
    "kohya, renamed": ("lora_unet_input_blocks_0_attn1_to_q.lora_up.weight", f"lora_unet_{FLAT}.lora_down.weight"),
    "PEFT in diffusers": (f"unet.{LAYER}.lora_B.weight", f"unet.{LAYER}.lora_A.weight"),
    "PEFT with an adapter": (f"unet.{LAYER}.lora_B.style.weight", f"unet.{LAYER}.lora_A.style.weight"),
    "PEFT alone": (f"base_model.model.{LAYER}.lora_B.weight", f"base_model.model.{LAYER}.lora_A.weight"),
    "diffusers": (f"unet.{LAYER}.lora.up.weight", f"unet.{LAYER}.lora.down.weight"),
    "processors": (
        "unet.down_blocks.0.attn1.processor.to_q_lora.up.weight",
        "down_blocks.0.attn1.processor.to_q_lora.down.weight",
    ),
    "dotted kohya": (f"unet.{LAYER}.lora_up.weight", f"unet.{LAYER}.lora_down.weight"),
}
TEXT_PAIRS = {
    "kohya": (f"lora_te_{FLAT_TEXT}.lora_up.weight", f"lora_te_{FLAT_TEXT}.lora_down.weight"),
    "diffusers": (
        f"text_encoder.{TEXT}.lora_linear_layer.up.weight",
        f"text_encoder.{TEXT}.lora_linear_layer.down.weight",
    ),
    "processors": (
        "text_encoder.text_model.layers.0.self_attn.to_q_lora.up.weight",
        "text_encoder.text_model.layers.0.self_attn.to_q_lora.down.weight",
    ),
    "PEFT in diffusers": (f"text_encoder.{TEXT}.lora_B.weight", f"text_encoder.{TEXT}.lora_A.weight"),
}


def save_tensors(folder: Path, tensors: dict[str, torch.Tensor], name: str = "x.safetensors", **metadata: str) -> Path:
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, folder / name, metadata or None)
    return folder / name


def load_parts(path: Path) -> dict[str, dict[str, LoRA]]:
    return load_lora(path, LAYOUT, torch.float32).parts


@pytest.mark.parametrize("layout", PAIRS)
def test_layers_of_all_layouts(tmp_path: Path, layout: str):
    up, down = PAIRS[layout]
    parts = load_parts(save_tensors(tmp_path, {up: UP, down: DOWN}))
    assert list(parts) == ["unet"]
    assert list(parts["unet"]) == [FLAT]
    layer = parts["unet"][FLAT]
    assert torch.equal(layer.up, UP)
    assert torch.equal(layer.down, DOWN)
    assert layer.scale == 1


@pytest.mark.parametrize("layout", TEXT_PAIRS)
def test_layers_of_a_text_encoder(tmp_path: Path, layout: str):
    up, down = TEXT_PAIRS[layout]
    parts = load_parts(save_tensors(tmp_path, {up: UP, down: DOWN}))
    assert {part: list(layers) for part, layers in parts.items()} == {"text": [FLAT_TEXT]}


def test_attention_output_of_processors(tmp_path: Path):
    names = (f"down_blocks.0.attn1.processor.to_out_lora.{side}.weight" for side in ("up", "down"))
    assert list(load_parts(save_tensors(tmp_path, dict(zip(names, (UP, DOWN), strict=True))))["unet"]) == [
        "down_blocks_0_attn1_to_out_0"
    ]


def test_peft_dora_magnitudes(tmp_path: Path):
    up, down = PAIRS["PEFT in diffusers"]
    path = save_tensors(tmp_path, {up: UP, down: DOWN, f"unet.{LAYER}.lora_magnitude_vector": torch.ones(4)})
    changed = load_parts(path)["unet"][FLAT].weight_delta(torch.zeros(4, 3))
    assert torch.allclose(changed.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    "kinds",
    [
        {"hada_w1_a": UP, "hada_w1_b": DOWN, "hada_w2_a": UP, "hada_w2_b": DOWN},
        {"lokr_w1": torch.ones(2, 1), "lokr_w2_a": torch.ones(2, 1), "lokr_w2_b": torch.ones(1, 3)},
        {"diff": torch.ones(4, 3), "diff_b": torch.ones(4)},
        {"weight": torch.ones(4), "on_input": torch.tensor(False)},
        {"w_norm": torch.ones(4), "b_norm": torch.ones(4)},
        {"oft_blocks": torch.ones(2, 2, 2), "alpha": torch.tensor(1.0)},
        {"lora_up.weight": UP, "lora_down.weight": DOWN, "dora_scale": torch.ones(1, 3)},
    ],
)
def test_every_tensor_kind_is_assigned_to_its_layer(tmp_path: Path, kinds: dict[str, torch.Tensor]):
    tensors = {f"lora_unet_{FLAT}.{kind}": tensor for kind, tensor in kinds.items()}
    assert list(load_parts(save_tensors(tmp_path, tensors))["unet"]) == [FLAT]


def test_dtype_and_size(tmp_path: Path):
    up, down = PAIRS["kohya"]
    alpha = f"lora_unet_{FLAT}.alpha"
    path = save_tensors(tmp_path, {up: UP.half(), down: DOWN.half(), alpha: torch.tensor(4.0).half()})
    lora = load_lora(path, LAYOUT, torch.bfloat16)
    layer = lora.parts["unet"][FLAT]
    assert (layer.up.dtype, layer.down.dtype, layer.scale) == (torch.bfloat16, torch.bfloat16, 2)
    assert lora.calc_size() == (8 + 6) * 2 + 2


@pytest.mark.parametrize("name", ["pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"])
def test_folders(tmp_path: Path, name: str):
    tensors = dict(zip(PAIRS["PEFT in diffusers"], (UP, DOWN), strict=True))
    if name.endswith(".bin"):
        torch.save(tensors, tmp_path / name)
    else:
        save_tensors(tmp_path, tensors, name)
    assert list(load_parts(tmp_path)["unet"]) == [FLAT]


def test_alpha_of_pefts_configuration(tmp_path: Path):
    tensors = dict(zip(PAIRS["PEFT in diffusers"], (UP, DOWN), strict=True))
    config = {"unet.lora_alpha": 6, "unet.r": 2, "text_encoder.lora_alpha": 100}
    path = save_tensors(tmp_path, tensors, lora_adapter_metadata=json.dumps(config))
    assert load_parts(path)["unet"][FLAT].scale == 3
    folder = tmp_path / "folder"
    folder.mkdir()
    save_tensors(folder, tensors, "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": 1, "r": 2}))
    assert load_parts(folder)["unet"][FLAT].scale == 0.5


def test_tensors_without_a_layer_are_ignored(tmp_path: Path):
    up, down = PAIRS["kohya"]
    ignored = {"bundle_emb.style.string_to_param.*": torch.ones(1, 3), "lora_unet_other.alpha": torch.tensor(1.0)}
    assert list(load_parts(save_tensors(tmp_path, {up: UP, down: DOWN, **ignored}))["unet"]) == [FLAT]


class TestBroken:
    def test_nan_values_are_refused(self, tmp_path: Path):
        up, down = PAIRS["kohya"]
        damaged = UP.clone()
        damaged[1, 1] = torch.nan
        with pytest.raises(ValueError, match=rf"x\.safetensors is damaged: layer {FLAT} .*NaN"):
            load_parts(save_tensors(tmp_path, {up: damaged, down: DOWN}))

    @pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
    def test_truncated_files_are_refused(self, tmp_path: Path, name: str):
        tensors = dict(zip(PAIRS["kohya"], (UP, DOWN), strict=True))
        path = tmp_path / name
        torch.save(tensors, path) if name.endswith(".pt") else save_tensors(tmp_path, tensors)
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(ValueError, match="cannot be read; download it again"):
            load_parts(path)

    def test_code_in_a_pickle_is_not_run(self, tmp_path: Path):
        torch.save({"a": Path("x")}, tmp_path / "x.pt")
        with pytest.raises(ValueError, match="cannot be read"):
            load_parts(tmp_path / "x.pt")

    def test_unknown_kind(self, tmp_path: Path):
        with pytest.raises(ValueError, match=rf"x\.safetensors cannot be used: layer {FLAT}: .*glora_a"):
            load_parts(save_tensors(tmp_path, {f"lora_unet_{FLAT}.glora_a": UP}))

    def test_incomplete_layers_are_refused(self, tmp_path: Path):
        with pytest.raises(
            ValueError, match=rf"is incomplete: layer {FLAT} lacks lora_down\.weight; download it again"
        ):
            load_parts(save_tensors(tmp_path, {PAIRS["kohya"][0]: UP}))

    def test_several_adapters(self, tmp_path: Path):
        tensors = {f"unet.{LAYER}.lora_A.{name}.weight": DOWN.clone() for name in ("one", "two")}
        with pytest.raises(ValueError, match=r"several adapters.*one, two"):
            load_parts(save_tensors(tmp_path, tensors))

    def test_no_tensors(self, tmp_path: Path):
        with pytest.raises(ValueError, match="holds no tensors"):
            load_parts(save_tensors(tmp_path, {}))

    def test_a_folder_without_weights_is_refused(self, tmp_path: Path):
        with pytest.raises(ValueError, match=r"pytorch_lora_weights\.safetensors"):
            load_parts(tmp_path)
