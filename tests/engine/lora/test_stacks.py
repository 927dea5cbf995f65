"""Changes of layers that are several modules of the model: the same result as changing the stacked weight by hand."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from invokeclone.engine.lora import apply
from invokeclone.engine.lora.apply import apply_loras, widen_input
from invokeclone.engine.lora.layers import LayerChange, Replacement, read_layer
from invokeclone.engine.lora.matching import LoRAPatch
from invokeclone.engine.lora.stacks import Stack, StackedChange

CPU = torch.device("cpu")
ROWS = {"query": 4, "key": 4, "mlp": 10}
COLUMNS, TOTAL = 6, 18
INPUTS = torch.randn(3, COLUMNS, generator=torch.Generator().manual_seed(3))


class Model(nn.Module):
    """Three layers that read the same inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleDict({name: nn.Linear(COLUMNS, rows) for name, rows in ROWS.items()})

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(inputs) for layer in self.layers.values()], dim=-1)


def random_tensor(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + len(shape)))


LOW_RANK = {"lora_up.weight": random_tensor(TOTAL, 2), "lora_down.weight": random_tensor(2, COLUMNS)}
HADAMARD = {
    "hada_w1_a": random_tensor(TOTAL, 2), "hada_w1_b": random_tensor(2, COLUMNS),
    "hada_w2_a": random_tensor(TOTAL, 3), "hada_w2_b": random_tensor(3, COLUMNS),
}  # fmt: skip
KINDS: dict[str, dict[str, torch.Tensor]] = {
    "LoRA": {**LOW_RANK, "alpha": torch.tensor(1.0)},
    "LoRA with a bias": {**LOW_RANK, "lora_up.bias": random_tensor(TOTAL), "alpha": torch.tensor(1.0)},
    "unequal ranks": {**LOW_RANK, "lora_down.weight": random_tensor(4, COLUMNS)},
    "LoHa": {**HADAMARD, "alpha": torch.tensor(1.0)},
    "LoKr of few rows": {"lokr_w1": random_tensor(9, 2), "lokr_w2": random_tensor(2, 3)},
    "LoKr of many rows": {"lokr_w1": random_tensor(2, 3), "lokr_w2": random_tensor(9, 2)},
    "factored LoKr": {
        "lokr_w1": random_tensor(3, 3), "lokr_w2_a": random_tensor(6, 1), "lokr_w2_b": random_tensor(1, 2),
        "alpha": torch.tensor(0.5),
    },
    "full": {"diff": random_tensor(TOTAL, COLUMNS), "diff_b": random_tensor(TOTAL)},
    "bias only": {"diff_b": random_tensor(TOTAL)},
    "DoRA per output": {**LOW_RANK, "dora_magnitude": random_tensor(TOTAL).abs() + 0.5},
    "DoRA per input": {**LOW_RANK, "dora_scale": random_tensor(1, COLUMNS).abs() + 0.5},
    "DoRA of LoHa": {**HADAMARD, "dora_magnitude": random_tensor(TOTAL).abs() + 0.5},
    "IA3 per output": {"weight": random_tensor(TOTAL), "on_input": torch.tensor(0)},
    "IA3 per input": {"weight": random_tensor(COLUMNS), "on_input": torch.tensor(1)},
    "OFT": {"oft_blocks": random_tensor(6, 3, 3) * 0.1, "alpha": torch.tensor(1.0)},
}  # fmt: skip


def stacked(change: LayerChange, *modules: str, swapped: bool = False) -> StackedChange:
    names = modules or tuple(ROWS)
    return StackedChange(change, Stack(tuple(f"layers_{name}" for name in names), swapped=swapped))


def patch(weight: float, **layers: Any) -> LoRAPatch:
    return LoRAPatch("style", layers, weight)


def by_hand(changes: list[tuple[LayerChange, float]], modules: tuple[str, ...] = tuple(ROWS)) -> torch.Tensor:
    """Return the outputs with changes of the stacked weight and bias, each relative to the original weight."""
    model = Model()
    layers: list[Any] = [model.layers[name] for name in modules]
    weight = torch.cat([layer.weight.detach() for layer in layers])
    bias = torch.cat([layer.bias.detach() for layer in layers])
    new_weight, new_bias = weight.clone(), bias.clone()
    for change, strength in changes:
        if (delta := change.weight_delta(weight)) is not None:
            new_weight += strength * delta
        if (difference := change.bias_delta()) is not None:
            new_bias += strength * difference
    for layer, rows, values in zip(
        layers, new_weight.split([ROWS[n] for n in modules]), new_bias.split([ROWS[n] for n in modules]), strict=True
    ):
        layer.weight.data, layer.bias.data = rows, values
    return run(model)


@torch.inference_mode()
def run(model: nn.Module) -> torch.Tensor:
    return model(INPUTS)


@pytest.fixture
def model() -> Iterator[Model]:
    """Yield the model; afterwards it must have the same tensor objects and values, and no hooks."""
    model = Model()
    before = {name: (tensor, tensor.data_ptr(), tensor.clone()) for name, tensor in model.named_parameters()}
    yield model
    for name, tensor in model.named_parameters():
        assert tensor is before[name][0]
        assert tensor.data_ptr() == before[name][1]
        assert torch.equal(tensor, before[name][2])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.fixture(params=["beside", "merged"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let weights count as lying in RAM or on a device."""
    monkeypatch.setattr(apply, "_is_on_device", lambda _weight: request.param == "merged")
    return request.param


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight", [0.5, -0.25])
def test_every_kind_is_split_exactly(model: Model, kind: str, weight: float):
    change = read_layer(KINDS[kind])
    with apply_loras(model, [patch(weight, fused=stacked(change))], CPU):
        result = run(model)
    assert torch.allclose(result, by_hand([(change, weight)]), atol=1e-5)
    assert not torch.allclose(result, run(model), atol=1e-3)


def test_a_stack_and_one_of_its_modules_add_up(model: Model):
    fused = read_layer(KINDS["LoRA"])
    single = read_layer({"diff": random_tensor(4, COLUMNS)})
    padded = torch.cat([torch.zeros(4, COLUMNS), random_tensor(4, COLUMNS), torch.zeros(10, COLUMNS)])
    patches = [patch(0.5, fused=stacked(fused)), patch(2.0, layers_key=single)]
    with apply_loras(model, patches, CPU):
        expected = by_hand([(fused, 0.5), (read_layer({"diff": padded}), 2.0)])
        assert torch.allclose(run(model), expected, atol=1e-5)


@pytest.mark.usefixtures("way")
def test_some_modules_of_a_stack(model: Model):
    change = read_layer({"diff": random_tensor(8, COLUMNS)})
    with apply_loras(model, [patch(1.0, part=stacked(change, "query", "key"))], CPU):
        assert torch.allclose(run(model), by_hand([(change, 1.0)], ("query", "key")), atol=1e-5)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", ["LoRA", "LoRA with a bias", "full", "LoKr", "DoRA per input"])
def test_halves_in_the_other_order(model: Model, kind: str):
    shapes = {"lokr_w1": (5, 2), "lokr_w2": (2, 3)} if kind == "LoKr" else {}
    tensors = {name: random_tensor(*shape) for name, shape in shapes.items()} or {
        name: tensor[:10] if tensor.shape[:1] == (TOTAL,) else tensor for name, tensor in KINDS[kind].items()
    }
    change = read_layer(tensors)
    other: Any = Model().layers["mlp"]
    swapped_weight = torch.cat(other.weight.data.chunk(2)[::-1])
    delta, bias = change.weight_delta(swapped_weight), change.bias_delta()
    assert delta is not None
    other.weight.data += torch.cat(delta.chunk(2)[::-1])
    if bias is not None:
        other.bias.data += torch.cat(bias.chunk(2)[::-1])
    with apply_loras(model, [patch(1.0, fused=stacked(change, "mlp", swapped=True))], CPU):
        assert torch.allclose(run(model)[:, -10:], other(INPUTS), atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        stacked(read_layer(KINDS["LoRA"]), "query", "key"),
        stacked(read_layer(KINDS["LoRA"]), "query", "key", "value"),
        stacked(read_layer({"diff": random_tensor(TOTAL, 5)})),
        stacked(read_layer({"diff_b": random_tensor(17)})),
    ],
    ids=["rows", "modules", "columns", "bias"],
)
def test_stacks_of_another_size_are_refused(model: Model, layer: StackedChange):
    with (
        pytest.raises(ValueError, match="matches no layer of this model"),
        apply_loras(model, [patch(1.0, fused=layer)], CPU),
    ):
        pytest.fail("it is applied")


class Packed(nn.Linear):
    """A layer that stores its weight in whole numbers, in another shape, and unpacks it in each call."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.bias.data = layer.bias.data.clone()
        self.weight = nn.Parameter((layer.weight.data * 50).round().to(torch.int8).reshape(-1, 1), requires_grad=False)

    def dense_weight(self) -> torch.Tensor:
        return self.weight.data.reshape(self.out_features, self.in_features) / 50

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs, self.dense_weight(), self.bias)


@pytest.mark.parametrize("kind", ["LoRA with a bias", "LoKr of few rows", "DoRA per output", "DoRA per input"])
def test_packed_weights_are_kept_and_unpacked_where_a_change_depends_on_them(kind: str):
    model, plain = Model(), Model()
    for name, layer in list(model.layers.items()):
        model.layers[name] = Packed(layer)
        plain.layers[name].weight.data = model.layers[name].dense_weight()
    stored = [layer.weight.data_ptr() for layer in model.layers.values()]
    change = read_layer(KINDS[kind])
    layers = {"fused": stacked(change), "layers_mlp": read_layer({"diff": random_tensor(10, COLUMNS)})}
    with apply_loras(plain, [patch(0.5, **layers)], CPU):
        expected = run(plain)
    with apply_loras(model, [patch(0.5, **layers)], CPU):
        assert torch.allclose(run(model), expected, atol=3e-2)  # dense changes are kept in half precision
        assert [layer.weight.data_ptr() for layer in model.layers.values()] == stored
    assert torch.allclose(run(model), run(plain))


class TestReplacement:
    @pytest.mark.usefixtures("way")
    @pytest.mark.parametrize("strength", [1.0, 0.3, -1.0])
    def test_the_new_weight_is_exact_at_any_strength(self, model: Model, strength: float):
        new = random_tensor(10, COLUMNS).to(torch.bfloat16).float()
        layer: Any = model.layers["mlp"]
        with apply_loras(model, [patch(strength, layers_mlp=read_layer({"set_weight": new}))], CPU):
            assert torch.equal(layer.weight.data, new)

    def test_other_changes_are_added(self, model: Model):
        new, difference = random_tensor(10, COLUMNS), random_tensor(10, COLUMNS)
        patches = [
            patch(0.5, layers_mlp=read_layer({"diff": difference * 2})),
            patch(0.5, layers_mlp=read_layer({"set_weight": new})),
        ]
        layer: Any = model.layers["mlp"]
        with apply_loras(model, patches, CPU):
            assert torch.allclose(layer.weight.data, new + difference, atol=1e-6)

    def test_a_stack(self, model: Model):
        new = random_tensor(TOTAL, COLUMNS)
        with apply_loras(model, [patch(0.1, fused=stacked(Replacement(new)))], CPU):
            assert torch.equal(torch.cat([layer.weight.data for layer in model.layers.values()]), new)


class TestWiderInput:
    WIDE = torch.randn(3, 9, generator=torch.Generator().manual_seed(8))

    @pytest.mark.parametrize(
        "tensors",
        [
            {"lora_up.weight": random_tensor(10, 2), "lora_down.weight": random_tensor(2, 9)},
            {"lora_up.weight": random_tensor(10, 2), "lora_down.weight": random_tensor(2, 9), "lora_up.bias": random_tensor(10)},
            {"diff": random_tensor(10, 9), "diff_b": random_tensor(10)},
        ],
        ids=["LoRA", "LoRA with a bias", "full"],
    )  # fmt: skip
    def test_a_layer_reads_further_inputs_through_the_change(self, model: Model, tensors: dict[str, torch.Tensor]):
        layer: Any = model.layers["mlp"]
        change = read_layer(tensors)
        widened = torch.cat([layer.weight.detach(), torch.zeros(10, 3)], dim=1)
        delta, bias = change.weight_delta(widened), change.bias_delta()
        assert delta is not None
        own = read_layer({"diff": random_tensor(10, COLUMNS)})
        with (
            apply_loras(model, [patch(0.5, layers_mlp=own)], CPU),
            widen_input(layer, change, 0.25, 9, CPU),
            torch.inference_mode(),
        ):
            result = layer(self.WIDE)
        widened[:, :COLUMNS] += 0.5 * random_tensor(10, COLUMNS)
        expected = nn.functional.linear(
            self.WIDE, widened + 0.25 * delta, layer.bias + (0 if bias is None else 0.25 * bias)
        )
        assert torch.allclose(result, expected, atol=1e-5)

    def test_another_size_is_refused(self, model: Model):
        layer: Any = model.layers["mlp"]
        change = read_layer({"diff": random_tensor(10, 8)})
        with pytest.raises(ValueError, match="10 outputs and 9 inputs"), widen_input(layer, change, 1.0, 9, CPU):
            pytest.fail("it is applied")
