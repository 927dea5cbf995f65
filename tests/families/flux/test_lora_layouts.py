"""LoRA files of FLUX.1 in every layout: the same model as with the changes added to Black Forest Labs' weights by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import lora_conversion_utils as diffusers_conversion
from safetensors.torch import save_file

from invokeclone.engine.lora.apply import apply_loras
from invokeclone.engine.lora.files import load_lora
from invokeclone.engine.lora.layers import read_layer
from invokeclone.engine.lora.matching import LoRAPatch, assign
from invokeclone.engine.quantized.files import read_weights
from invokeclone.engine.quantized.packed import PackedLinear
from invokeclone.families.flux import single_files
from invokeclone.families.flux.load import transformer_of
from invokeclone.families.flux.lora_keys import LAYOUT
from tests.quantized_files import write_gguf
from tests.tiny_flux import TRANSFORMER, original_names

CPU = torch.device("cpu")
RANK, WEIGHT = 3, 0.7
SWAPPED = "final_layer.adaLN_modulation.1"
Tensors = dict[str, torch.Tensor]
Pair = tuple[torch.Tensor, torch.Tensor]


def random_tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.fixture(scope="module")
def original(flux_transformer: Any) -> Tensors:
    """Return the transformer's tensors with Black Forest Labs' names."""
    return original_names(flux_transformer.state_dict())


@pytest.fixture(scope="module")
def pairs(original: Tensors) -> dict[str, Pair]:
    """Return two matrices, up and down, for every linear layer of Black Forest Labs' names."""
    layers = [name.removesuffix(".weight") for name in original if name.endswith(".weight")]
    made = {}
    for number, layer in enumerate(layers):
        rows, columns = original[f"{layer}.weight"].shape
        made[layer] = (0.2 * random_tensor(rows, RANK, seed=number), random_tensor(RANK, columns, seed=-number))
    return made


@torch.inference_mode()
def predict(transformer: Any, weights: Tensors | None = None) -> torch.Tensor:
    """Return the transformer's output, with other weights if there are any."""
    inputs = {
        "hidden_states": random_tensor(1, 12, TRANSFORMER["in_channels"]),
        "encoder_hidden_states": random_tensor(1, 5, TRANSFORMER["joint_attention_dim"]),
        "pooled_projections": random_tensor(1, TRANSFORMER["pooled_projection_dim"]),
        "timestep": torch.tensor([0.5]),
        "guidance": torch.tensor([3.0]),
        "img_ids": torch.arange(36.0).reshape(12, 3),
        "txt_ids": torch.zeros(5, 3),
        "return_dict": False,
    }
    return torch.func.functional_call(transformer, weights or {}, kwargs=inputs)[0]


Merge = Callable[..., torch.Tensor]


@pytest.fixture(scope="module")
def predict_merged(flux_transformer: Any, original: Tensors) -> Merge:
    """Predict with changes of Black Forest Labs' tensors, added in float32."""

    def merge(deltas: Tensors, weight: float = WEIGHT) -> torch.Tensor:
        changed = {name: value + weight * deltas[name] if name in deltas else value for name, value in original.items()}
        return predict(flux_transformer, single_files.NAMES.to_diffusers(changed))

    return merge


def load(path: Path, tensors: Tensors, **metadata: str) -> dict[str, Any]:
    """Return the parts of a file with these tensors."""
    file = path / "lora.safetensors"
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, file, metadata)
    return load_lora(file, LAYOUT, torch.float32).parts


def predict_with(transformer: Any, parts: dict[str, Any], weight: float = WEIGHT) -> torch.Tensor:
    before = {name: tensor.data_ptr() for name, tensor in transformer.named_parameters()}
    with apply_loras(transformer, [LoRAPatch("style", parts["transformer"], weight)], CPU):
        result = predict(transformer)
    assert {name: tensor.data_ptr() for name, tensor in transformer.named_parameters()} == before
    assert not any(module._forward_hooks for module in transformer.modules())
    assert not torch.allclose(result, predict(transformer), atol=1e-2)
    return result


def flat(name: str) -> str:
    return name.replace(".", "_")


def rows_of(layer: str, up: torch.Tensor, hidden: int) -> Tensors:
    """Return the rows of each of diffusers' modules that a layer consists of."""
    modules = single_files.NAMES.module_names(layer)
    if layer == SWAPPED:
        return {modules[0]: torch.cat(up.chunk(2)[::-1])}
    if len(modules) == 1:
        return {modules[0]: up}
    sizes = [hidden] * 3 + [up.shape[0] - 3 * hidden] * (len(modules) - 3)
    return dict(zip(modules, up.split(sizes), strict=True))


def low_rank(name: str, up: torch.Tensor, down: torch.Tensor, alpha: float | None = None) -> Tensors:
    tensors = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
    return tensors if alpha is None else {**tensors, f"{name}.alpha": torch.tensor(alpha)}


def peft_pair(name: str, up: torch.Tensor, down: torch.Tensor, adapter: str = "") -> Tensors:
    return {f"{name}.lora_B{adapter}.weight": up, f"{name}.lora_A{adapter}.weight": down}


def per_module(layer: str, up: torch.Tensor, down: torch.Tensor, write: Callable[..., Tensors]) -> Tensors:
    """Return the tensors of diffusers' modules that a layer consists of."""
    tensors: Tensors = {}
    for module, rows in rows_of(
        layer, up, TRANSFORMER["attention_head_dim"] * TRANSFORMER["num_attention_heads"]
    ).items():
        tensors |= write(module, rows, down)
    return tensors  # fmt: skip


def onetrainer_bfl(layer: str, up: torch.Tensor, down: torch.Tensor) -> Tensors:
    """Return the tensors of a layer whose modules are numbered."""
    modules = per_module(layer, up, down, lambda module, rows, matrix: {module: (rows, matrix)})  # type: ignore[dict-item]
    if len(modules) == 1:
        return low_rank(f"transformer.{layer}", up, down, RANK)
    tensors: Tensors = {}
    for number, (rows, matrix) in enumerate(modules.values()):
        tensors |= low_rank(f"transformer.{layer}.{number}", rows, matrix, RANK)
    return tensors


LAYOUTS: dict[str, Callable[[str, torch.Tensor, torch.Tensor], Tensors]] = {
    "kohya": lambda layer, up, down: low_rank(f"lora_unet_{flat(layer)}", up, down, RANK),
    "kohya, without alpha": lambda layer, up, down: low_rank(f"lora_unet_{flat(layer)}", up, down),
    "PEFT": lambda layer, up, down: peft_pair(f"diffusion_model.{layer}", up, down),
    "PEFT of a base model": lambda layer, up, down: peft_pair(f"base_model.model.{layer}", up, down, ".default"),
    "ComfyUI": lambda layer, up, down: low_rank(f"diffusion_model.{layer}", up, down),
    "Black Forest Labs": peft_pair,
    "diffusers": lambda layer, up, down: per_module(
        layer, up, down, lambda module, *pair: peft_pair(f"transformer.{module}", *pair)
    ),
    "diffusers in a base model": lambda layer, up, down: per_module(
        layer, up, down, lambda module, *pair: peft_pair(f"base_model.model.{module}", *pair)
    ),
    "diffusers, without prefix": lambda layer, up, down: per_module(layer, up, down, peft_pair),
    "diffusers with kohya's names": lambda layer, up, down: per_module(
        layer, up, down, lambda module, *pair: low_rank(f"transformer.{module}", *pair, RANK)
    ),
    "OneTrainer": lambda layer, up, down: per_module(
        layer, up, down, lambda module, *pair: low_rank(f"lora_transformer_{flat(module)}", *pair, RANK)
    ),
    "OneTrainer with Black Forest Labs' names, and the Open Model Initiative": onetrainer_bfl,
    "LyCORIS": lambda layer, up, down: per_module(
        layer, up, down, lambda module, *pair: low_rank(f"lycoris_{flat(module)}", *pair, RANK)
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_model(
    tmp_path: Path, flux_transformer: Any, predict_merged: Merge, pairs: dict[str, Pair], layout: str
):
    tensors: Tensors = {}
    deltas: Tensors = {}
    for layer, (up, down) in pairs.items():
        if layer == "final_layer.linear" and layout.startswith("kohya"):
            continue
        tensors |= LAYOUTS[layout](layer, up, down)
        deltas[f"{layer}.weight"] = up @ down
    result = predict_with(flux_transformer, load(tmp_path, tensors))
    assert torch.allclose(result, predict_merged(deltas), atol=2e-4)


def test_kohyas_last_layer_has_no_effect(tmp_path: Path, pairs: dict[str, Pair]):
    tensors = LAYOUTS["kohya"]("img_in", *pairs["img_in"])
    tensors |= LAYOUTS["kohya"]("final_layer.linear", *pairs["final_layer.linear"])
    assert list(load(tmp_path, tensors)["transformer"]) == ["x_embedder"]


XLABS = {
    "double_blocks.1.processor.qkv_lora1": "double_blocks.1.img_attn.qkv",
    "double_blocks.1.processor.qkv_lora2": "double_blocks.1.txt_attn.qkv",
    "double_blocks.0.processor.proj_lora1": "double_blocks.0.img_attn.proj",
    "double_blocks.0.processor.proj_lora2": "double_blocks.0.txt_attn.proj",
    "single_blocks.1.processor.proj_lora": "single_blocks.1.linear2",
}


def test_xlabs(tmp_path: Path, flux_transformer: Any, original: Tensors, predict_merged: Merge, pairs: dict[str, Pair]):
    tensors: Tensors = {}
    deltas: Tensors = {}
    for name, layer in XLABS.items():
        tensors |= {f"{name}.up.weight": pairs[layer][0], f"{name}.down.weight": pairs[layer][1]}
        deltas[f"{layer}.weight"] = pairs[layer][0] @ pairs[layer][1]
    hidden = original["img_in.weight"].shape[0]
    up, down = random_tensor(3 * hidden, RANK), random_tensor(RANK, hidden)
    name = "single_blocks.0.processor.qkv_lora"
    tensors |= {f"{name}.up.weight": up, f"{name}.down.weight": down}
    rest = torch.zeros(original["single_blocks.0.linear1.weight"].shape[0] - 3 * hidden, hidden)
    deltas["single_blocks.0.linear1.weight"] = torch.cat([up @ down, rest])
    result = predict_with(flux_transformer, load(tmp_path, tensors))
    assert torch.allclose(result, predict_merged(deltas), atol=2e-4)


def kinds_of(rows: int, columns: int) -> dict[str, Tensors]:
    """Return the tensors of each kind of change of a layer."""
    pair = {"lora_up.weight": random_tensor(rows, RANK), "lora_down.weight": random_tensor(RANK, columns)}
    return {
        "LoKr": {"lokr_w1": 0.3 * random_tensor(4, 4), "lokr_w2": random_tensor(rows // 4, columns // 4)},
        "factored LoKr": {
            "lokr_w1": 0.3 * random_tensor(2, 2), "lokr_w2_a": random_tensor(rows // 2, 2),
            "lokr_w2_b": random_tensor(2, columns // 2), "alpha": torch.tensor(1.0),
        },
        "LoHa": {
            "hada_w1_a": random_tensor(rows, 2), "hada_w1_b": 0.3 * random_tensor(2, columns),
            "hada_w2_a": random_tensor(rows, 2, seed=1), "hada_w2_b": random_tensor(2, columns, seed=1),
        },
        "full": {"diff": 0.3 * random_tensor(rows, columns), "diff_b": random_tensor(rows)},
        "DoRA per output": {**pair, "dora_magnitude": random_tensor(rows).abs() + 0.2},
        "DoRA per input": {**pair, "dora_scale": random_tensor(1, columns).abs() + 0.2, "alpha": torch.tensor(1.0)},
        "biased LoRA": {**pair, "lora_B.bias": random_tensor(rows)},
    }  # fmt: skip


def changes_of(layer: str, kind: str, weight: torch.Tensor) -> Tensors:
    """Return what a change of a kind adds to a layer with this weight."""
    stored = kinds_of(*weight.shape)[kind]
    change = read_layer({tensor.replace("lora_B.bias", "lora_up.bias"): value for tensor, value in stored.items()})
    delta, bias = change.weight_delta(weight), change.bias_delta()
    assert delta is not None
    return {f"{layer}.weight": delta} | ({} if bias is None else {f"{layer}.bias": bias})


LAYERS = ("double_blocks.1.txt_attn.qkv", "single_blocks.0.linear1", "single_blocks.1.linear2", SWAPPED)


@pytest.mark.parametrize(
    ("prefix", "kind"), [*(("diffusion_model.", kind) for kind in kinds_of(8, 8)), ("lora_unet_", "LoKr")]
)
def test_every_kind_over_fused_layers(
    tmp_path: Path, flux_transformer: Any, original: Tensors, predict_merged: Merge, kind: str, prefix: str
):
    tensors: Tensors = {}
    deltas: Tensors = {}
    for layer in LAYERS:
        weight = original[f"{layer}.weight"]
        stored = kinds_of(*weight.shape)[kind]
        name = prefix + (flat(layer) if prefix == "lora_unet_" else layer)
        tensors |= {f"{name}.{tensor}": value for tensor, value in stored.items()}
        deltas |= changes_of(layer, kind, weight)
    result = predict_with(flux_transformer, load(tmp_path, tensors))
    assert torch.allclose(result, predict_merged(deltas), atol=5e-4)


@pytest.mark.parametrize("name", ["norm.query_norm.w_norm", "norm.query_norm.scale.diff"])
def test_norms(tmp_path: Path, flux_transformer: Any, original: Tensors, predict_merged: Merge, name: str):
    scale = original["single_blocks.1.norm.query_norm.scale"]
    delta = random_tensor(*scale.shape)
    parts = load(tmp_path, {f"diffusion_model.single_blocks.1.{name}": delta})
    merged = predict_merged({"single_blocks.1.norm.query_norm.scale": delta}, 5.0)
    assert torch.allclose(predict_with(flux_transformer, parts, 5.0), merged, atol=2e-4)


def test_several_loras_and_negative_weights(
    tmp_path: Path, flux_transformer: Any, predict_merged: Merge, pairs: dict[str, Pair]
):
    layers = ("double_blocks.0.img_attn.qkv", "single_blocks.0.linear1")
    first = load(tmp_path, {k: v for layer in layers for k, v in LAYOUTS["kohya"](layer, *pairs[layer]).items()})
    second = load(tmp_path, LAYOUTS["diffusers"](layers[0], *pairs[layers[0]]))
    loras = [LoRAPatch("a", first["transformer"], -0.5), LoRAPatch("b", second["transformer"], 0.2)]
    with apply_loras(flux_transformer, loras, CPU):
        result = predict(flux_transformer)
    products = {layer: pairs[layer][0] @ pairs[layer][1] for layer in layers}
    deltas = {f"{layers[0]}.weight": -0.3 * products[layers[0]], f"{layers[1]}.weight": -0.5 * products[layers[1]]}
    assert torch.allclose(result, predict_merged(deltas, 1.0), atol=2e-4)


def test_alpha_of_pefts_configuration(tmp_path: Path, pairs: dict[str, Pair], flux_transformer: Any):
    layer = "double_blocks.0.img_attn.proj"
    config = json.dumps({"transformer.lora_alpha": 6, "transformer.r": RANK})
    parts = load(tmp_path, LAYOUTS["diffusers"](layer, *pairs[layer]), lora_adapter_metadata=config)
    assert parts["transformer"]["transformer_blocks_0_attn_to_out_0"].scale == 2


@pytest.mark.parametrize("kind", ["DoRA per input", "LoKr", "biased LoRA"])
def test_quantized_weights_are_kept(
    tmp_path: Path, flux_transformer: Any, original: Tensors, predict_merged: Merge, kind: str
):
    """The same result as with the decoded weights, merged by hand."""
    write_gguf(tmp_path / "flux.gguf", original, "Q8_0")
    transformer = transformer_of(read_weights(tmp_path / "flux.gguf"), torch.float32, "flux.gguf")
    packed = {name: module for name, module in transformer.named_modules() if isinstance(module, PackedLinear)}
    assert "transformer_blocks.1.attn.add_k_proj" in packed
    dense = {**transformer.state_dict(), **{f"{name}.weight": m.decode(torch.float32) for name, m in packed.items()}}
    decoded = original_names({name: tensor for name, tensor in dense.items() if name in flux_transformer.state_dict()})
    tensors: Tensors = {}
    for layer in LAYERS:
        stored = kinds_of(*original[f"{layer}.weight"].shape)[kind]
        tensors |= {f"diffusion_model.{layer}.{tensor}": value for tensor, value in stored.items()}
    deltas: Tensors = {}
    for layer in LAYERS:
        deltas |= changes_of(layer, kind, decoded[f"{layer}.weight"])
    expected = predict_merged(
        {name: (decoded[name] - original[name]) / WEIGHT + deltas.get(name, 0) for name in decoded}
    )
    result = predict_with(transformer, load(tmp_path, tensors))
    assert torch.allclose(result, expected, atol=4e-2)


class TestAgainstDiffusers:
    """The library converts these layouts, too; its tensors, by module, are the products of ours."""

    def deltas(self, transformer: Any, parts: dict[str, Any]) -> Tensors:
        names = {module: name for name, module in transformer.named_modules()}
        assigned = assign(transformer, [LoRAPatch("x", parts["transformer"], 1.0)], "")
        return {
            names[module]: change.weight_delta(module.weight.detach())
            for module, changes in assigned.items()
            for change, _ in changes
        }

    def converted(self, tensors: Tensors) -> Tensors:
        ups = [name for name in tensors if name.endswith("lora_B.weight")]
        return {
            name.removeprefix("transformer.").removesuffix(".lora_B.weight"): tensors[name]
            @ tensors[name.replace("lora_B", "lora_A")]
            for name in ups
        }

    def assert_equal(self, actual: Tensors, expected: Tensors):
        assert actual.keys() == expected.keys()
        for name, delta in expected.items():
            assert torch.allclose(actual[name], delta, atol=1e-5), name

    def test_kohya(self, tmp_path: Path, flux_transformer: Any, pairs: dict[str, Pair]):
        tensors: Tensors = {}
        for layer, (up, down) in pairs.items():
            # the library assumes the published width of linear1, and reads no alpha of the layers outside the blocks
            if layer.endswith("linear1") or layer == "final_layer.linear":
                continue
            alpha = RANK if layer == SWAPPED else 2.0
            tensors |= low_rank(f"lora_unet_{flat(layer)}", up, down, alpha)
        actual = self.deltas(flux_transformer, load(tmp_path, tensors))
        expected = self.converted(diffusers_conversion._convert_kohya_flux_lora_to_diffusers(dict(tensors)))
        self.assert_equal(actual, expected)

    def test_xlabs(self, tmp_path: Path, flux_transformer: Any, pairs: dict[str, Pair], original: Tensors):
        tensors: Tensors = {}
        for name, layer in XLABS.items():
            tensors |= {f"{name}.up.weight": pairs[layer][0], f"{name}.down.weight": pairs[layer][1]}
        hidden = original["img_in.weight"].shape[0]
        name = "single_blocks.0.processor.qkv_lora"
        tensors |= {f"{name}.up.weight": random_tensor(3 * hidden, 2), f"{name}.down.weight": random_tensor(2, hidden)}
        actual = self.deltas(flux_transformer, load(tmp_path, tensors))
        expected = self.converted(diffusers_conversion._convert_xlabs_flux_lora_to_diffusers(dict(tensors)))
        self.assert_equal(actual, expected)


TEXT = "text_model.encoder.layers.1.self_attn.q_proj"
T5 = "encoder.block.0.layer.0.SelfAttention.v"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (f"lora_te1_{flat(TEXT)}.lora_up.weight", "clip"),
        (f"lora_te_{flat(TEXT)}.lora_up.weight", "clip"),
        (f"text_encoder.{TEXT}.lora_B.weight", "clip"),
        (f"text_encoders.clip_l.transformer.{TEXT}.lora_up.weight", "clip"),
        (f"clip_l.{TEXT}.lora_up.weight", "clip"),
        (f"lora_te2_{flat(T5)}.lora_up.weight", "t5"),
        (f"lora_te3_{flat(T5)}.lora_up.weight", "t5"),
        (f"text_encoder_2.{T5}.lora_B.weight", "t5"),
        (f"text_encoders.t5xxl.transformer.{T5}.lora_up.weight", "t5"),
        (f"t5.{T5}.lora_up.weight", "t5"),
    ],
)
def test_text_encoders(tmp_path: Path, sd1_parts: dict[str, Any], tiny_t5: Any, name: str, part: str):
    encoder, layer = (sd1_parts["text_encoder"], TEXT) if part == "clip" else (tiny_t5, T5)
    module = encoder.get_submodule(layer if part == "t5" else layer.removeprefix("text_model."))
    up, down = random_tensor(module.out_features, 2), random_tensor(2, module.in_features)
    down_name = name.replace("lora_up", "lora_down").replace("lora_B", "lora_A")
    parts = load(tmp_path, {name: up, down_name: down})
    assert list(parts) == [part]
    inputs = random_tensor(2, module.in_features)
    with (
        torch.inference_mode(),
        apply_loras(encoder, [LoRAPatch("x", parts[part], 0.5)], CPU, optional_prefix="text_model_"),
    ):
        result = module(inputs)
    expected = torch.nn.functional.linear(inputs, module.weight + 0.5 * up @ down, module.bias)
    assert torch.allclose(result, expected, atol=1e-4)


@pytest.fixture(scope="module")
def tiny_t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=32, d_model=12, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


@pytest.mark.parametrize(
    "tensors",
    [
        low_rank("lora_unet_double_blocks_0_img_attn_qkv", random_tensor(96, 2), random_tensor(2, 48)),
        low_rank("lora_unet_down_blocks_0_attentions_0_proj_in", random_tensor(32, 2), random_tensor(2, 32)),
        peft_pair("diffusion_model.layers.0.attention.qkv", random_tensor(96, 2), random_tensor(2, 32)),
    ],
    ids=["FLUX of another width", "Stable Diffusion", "Z-Image"],
)
def test_loras_of_other_models_are_refused(tmp_path: Path, flux_transformer: Any, tensors: Tensors):
    parts = load(tmp_path, tensors)
    with (
        pytest.raises(ValueError, match="matches no layer of this model: it was made for another base"),
        apply_loras(flux_transformer, [LoRAPatch("style", parts["transformer"], 1.0)], CPU),
    ):
        pytest.fail("it is applied")
