"""LoRAs on a small model: the same result as new weights, on the CPU and on a device, and everything as before afterwards."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from invokeclone.engine import placement
from invokeclone.engine.devices import DeviceMemory
from invokeclone.engine.lora import apply
from invokeclone.engine.lora.apply import apply_loras
from invokeclone.engine.lora.layers import LayerChange, read_layer
from invokeclone.engine.lora.matching import LoRAPatch
from invokeclone.engine.patches import seamless

CPU = torch.device("cpu")


class Model(nn.Module):
    """A layer of each type."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(8, 6)
        self.block = nn.ModuleDict(
            {"norm": nn.LayerNorm(6), "to_q": nn.Linear(6, 6), "to_k": nn.Linear(6, 6, bias=False)}
        )
        self.conv_in = nn.Conv2d(1, 4, 3, padding=1)
        self.group = nn.GroupNorm(2, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        states = self.block["to_k"](self.block["to_q"](self.block["norm"](self.embedding(tokens))))
        return self.group(self.conv_in(states[:, None]))


def random_tensor(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


CHANGES: dict[str, LayerChange] = {
    "embedding": read_layer({"lora_up.weight": random_tensor(8, 2), "lora_down.weight": random_tensor(2, 6)}),
    "block_norm": read_layer({"w_norm": random_tensor(6), "b_norm": random_tensor(6)}),
    "block_to_q": read_layer(
        {"lora_up.weight": random_tensor(6, 2), "lora_down.weight": random_tensor(2, 6), "alpha": torch.tensor(1.0)}
    ),
    "block_to_k": read_layer({"lokr_w1": random_tensor(2, 2), "lokr_w2": random_tensor(3, 3)}),
    "conv_in": read_layer({"diff": random_tensor(4, 1, 3, 3), "diff_b": random_tensor(4)}),
    "group": read_layer({"w_norm": random_tensor(4), "b_norm": random_tensor(4)}),
}
DORA = read_layer(
    {"lora_up.weight": random_tensor(6, 2), "lora_down.weight": random_tensor(2, 6), "dora_scale": torch.ones(1, 6)}
)
TOKENS = torch.tensor([[1, 5, 7, 0]])


def lora(weight: float = 0.5, name: str = "style", **layers: LayerChange) -> LoRAPatch:
    return LoRAPatch(name, layers or CHANGES, weight)


def merge_by_hand(weight: float, layers: dict[str, LayerChange] = CHANGES) -> nn.Module:
    """Return the model with new weights and biases, by hand."""
    model = Model()
    modules = {name.replace(".", "_"): module for name, module in model.named_modules()}
    for name, change in layers.items():
        module: Any = modules[name]
        if (delta := change.weight_delta(module.weight.detach())) is not None:
            module.weight.data += weight * delta
        if (bias := change.bias_delta()) is not None:
            module.bias.data += weight * bias
    return model


@torch.inference_mode()
def run(model: nn.Module) -> torch.Tensor:
    return model(TOKENS)


def close(actual: torch.Tensor, expected: torch.Tensor) -> bool:
    return torch.allclose(actual, expected, atol=1e-5)


@pytest.fixture
def model() -> Iterator[nn.Module]:
    """Yield the model; afterwards it must have the same tensor objects, hooks and results as before."""
    model = Model()
    before = {
        name: (parameter, parameter.data_ptr(), parameter.clone()) for name, parameter in model.named_parameters()
    }
    result = run(model)
    yield model
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    for name, (parameter, address, values) in before.items():
        assert after[name] is parameter
        assert parameter.data_ptr() == address
        assert torch.equal(parameter, values)
    for module in model.modules():
        assert not module._forward_hooks
        assert "forward" not in module.__dict__
    assert torch.equal(run(model), result)


@pytest.fixture(params=["beside", "merged"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let weights count as lying in RAM or on a device."""
    monkeypatch.setattr(apply, "_is_on_device", lambda _weight: request.param == "merged")
    return request.param


@pytest.mark.usefixtures("way")
class TestBothMethods:
    @pytest.mark.parametrize("weight", [0.5, -0.3, 1.0])
    def test_every_type_of_layer(self, model: nn.Module, weight: float):
        with apply_loras(model, [lora(weight)], CPU):
            assert close(run(model), run(merge_by_hand(weight)))
            assert not close(run(model), run(merge_by_hand(0)))

    def test_zero_weight_or_no_loras_change_nothing(self, model: nn.Module):
        before = run(model)
        with apply_loras(model, [lora(0.0)], CPU), apply_loras(model, [], CPU):
            assert torch.equal(run(model), before)

    def test_several_loras_add_up(self, model: nn.Module):
        with apply_loras(model, [lora(0.5), lora(0.25), lora(-0.5, block_to_q=CHANGES["block_to_q"])], CPU):
            result = run(model)
        expected = merge_by_hand(0.75, {name: change for name, change in CHANGES.items() if name != "block_to_q"})
        layer: Any = expected.get_submodule("block.to_q")
        layer.weight.data += 0.25 * CHANGES["block_to_q"].weight_delta(layer.weight.data)
        assert close(result, run(expected))

    def test_nested_contexts_add_up(self, model: nn.Module):
        with apply_loras(model, [lora(0.5)], CPU):
            with apply_loras(model, [lora(0.25)], CPU):
                assert close(run(model), run(merge_by_hand(0.75)))
            assert close(run(model), run(merge_by_hand(0.5)))

    def test_weights_are_restored_after_an_error(self, model: nn.Module):
        with pytest.raises(KeyError), apply_loras(model, [lora()], CPU):
            raise KeyError

    def test_weights_are_restored_when_applying_fails(self, model: nn.Module, monkeypatch: pytest.MonkeyPatch):
        def fails(_change: Any, _weight: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of luck")

        monkeypatch.setattr(type(CHANGES["block_to_k"]), "weight_delta", fails)
        with pytest.raises(RuntimeError, match="out of luck"), apply_loras(model, [lora()], CPU):
            pytest.fail("it is applied")

    @pytest.mark.parametrize("outer", ["seamless", "lora"])
    def test_circular_padding(self, model: nn.Module, outer: str):
        contexts = [lambda: seamless(model, ["x", "y"]), lambda: apply_loras(model, [lora()], CPU)]
        first, second = contexts if outer == "seamless" else reversed(contexts)
        expected = merge_by_hand(0.5)
        with seamless(expected, ["x", "y"]):
            wrapped = run(expected)
        with first(), second():
            assert close(run(model), wrapped)
        assert not close(wrapped, run(expected))

    def test_layers_that_the_model_does_not_have_are_reported_once(
        self, model: nn.Module, monkeypatch: pytest.MonkeyPatch
    ):
        warnings: list[str] = []
        monkeypatch.setattr(apply.logger, "warning", lambda message, *values: warnings.append(message % values))
        unmatched = {
            "block_to_v": CHANGES["block_to_q"],
            "block_to_q": CHANGES["block_to_q"],
            "block_to_k": CHANGES["conv_in"],
        }
        with apply_loras(model, [lora(**unmatched)], CPU):
            assert close(run(model), run(merge_by_hand(0.5, {"block_to_q": CHANGES["block_to_q"]})))
        assert warnings == ["LoRA style: 2 unknown layers are skipped, such as block_to_v"]

    def test_a_lora_without_matching_layers_is_refused(self, model: nn.Module):
        with (
            pytest.raises(ValueError, match=r"LoRA style matches no layer of this model.*another base.*block_to_v"),
            apply_loras(model, [lora(block_to_v=CHANGES["block_to_q"])], CPU),
        ):
            pytest.fail("it is applied")

    def test_bias_for_a_layer_without_bias(self, model: nn.Module):
        with (
            pytest.raises(ValueError, match="matches no layer"),
            apply_loras(model, [lora(block_to_k=read_layer({"diff_b": random_tensor(6)}))], CPU),
        ):
            pytest.fail("it is applied")

    def test_unknown_prefix(self, model: nn.Module):
        with apply_loras(model, [lora(top_block_to_q=CHANGES["block_to_q"])], CPU, optional_prefix="top_"):
            assert close(run(model), run(merge_by_hand(0.5, {"block_to_q": CHANGES["block_to_q"]})))


class TestOnTheCPU:
    def test_changes_start_from_the_original_weight(self, model: nn.Module):
        with apply_loras(model, [lora(1.0, block_to_q=CHANGES["block_to_q"]), lora(1.0, block_to_q=DORA)], CPU):
            result = run(model)
        expected = Model()
        layer: Any = expected.get_submodule("block.to_q")
        weight = layer.weight.data
        layer.weight.data = weight + CHANGES["block_to_q"].weight_delta(weight) + DORA.weight_delta(weight)
        assert close(result, run(expected))

    def test_linear_weights_are_not_modified(self, model: nn.Module):
        layer: Any = model.get_submodule("block.to_q")
        address = layer.weight.data_ptr()
        with apply_loras(model, [lora()], CPU):
            assert layer.weight.data_ptr() == address


class TestOnADevice:
    @pytest.fixture(autouse=True)
    def _on_device(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(apply, "_is_on_device", lambda _weight: True)

    def test_later_changes_build_on_earlier_ones(self, model: nn.Module):
        with apply_loras(model, [lora(1.0, block_to_q=CHANGES["block_to_q"]), lora(1.0, block_to_q=DORA)], CPU):
            result = run(model)
        expected = Model()
        layer: Any = expected.get_submodule("block.to_q")
        layer.weight.data = layer.weight.data + CHANGES["block_to_q"].weight_delta(layer.weight.data)
        layer.weight.data = layer.weight.data + DORA.weight_delta(layer.weight.data)
        assert close(result, run(expected))

    def test_half_precision_is_rounded_once(self):
        model = Model().half()
        layer: Any = model.get_submodule("block.to_q")
        change, weight = CHANGES["block_to_q"], layer.weight.detach().clone()
        with apply_loras(model, [lora(0.3, block_to_q=change)], CPU):
            expected = weight + (change.weight_delta(weight.float()) * 0.3).half()
            assert torch.equal(layer.weight, expected)
            assert layer.weight.dtype == torch.float16
        assert torch.equal(layer.weight, weight)

    @pytest.mark.parametrize("how", ["no memory left", "memory runs out"])
    def test_without_memory_deltas_are_computed_unmerged(
        self, model: nn.Module, monkeypatch: pytest.MonkeyPatch, how: str
    ):
        if how == "no memory left":
            monkeypatch.setattr(apply._Patcher, "__init__", _without_budget)
        else:
            monkeypatch.setattr(apply._Patcher, "_merge", _out_of_memory)
        layers = {name: CHANGES[name] for name in ("block_to_q", "block_to_k", "conv_in")}
        addresses = [parameter.data_ptr() for parameter in model.parameters()]
        with apply_loras(model, [lora(**layers)], CPU):
            assert close(run(model), run(merge_by_hand(0.5, layers)))
            assert [parameter.data_ptr() for parameter in model.parameters()] == addresses


def _without_budget(self: Any, device: torch.device, stack: Any) -> None:
    self._device, self._stack, self._budget = device, stack, 0


def _out_of_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError("out of memory")


@pytest.mark.parametrize("kind", ["float8_e4m3fn"])
def test_weights_in_a_compact_dtype(kind: str):
    """Their layers upcast them in each call; here a hook of the test does."""
    compact = getattr(torch, kind)
    model = Model()
    for name in ("block.to_q", "conv_in"):
        layer: Any = model.get_submodule(name)
        layer.weight.data = layer.weight.data.to(compact)

    def upcast(module: Any, _inputs: Any) -> None:
        module.stored, module.weight.data = module.weight.data, module.weight.data.float()

    def drop(module: Any, _inputs: Any, _output: Any) -> None:
        module.weight.data = module.stored

    expected = copy.deepcopy(model)
    layers = {name: CHANGES[name] for name in ("block_to_q", "conv_in")}
    for name, change in (("block.to_q", layers["block_to_q"]), ("conv_in", layers["conv_in"])):
        layer, other = model.get_submodule(name), expected.get_submodule(name)
        layer.register_forward_pre_hook(upcast)
        layer.register_forward_hook(drop)
        other.weight.data = other.weight.data.float() + 0.5 * change.weight_delta(other.weight.data.float())
        if (bias := change.bias_delta()) is not None:
            other.bias.data += 0.5 * bias
    stored = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with apply_loras(model, [lora(**layers)], CPU):
        assert close(run(model), run(expected))
        assert model.get_submodule("conv_in").weight.dtype == compact
    assert all(torch.equal(stored[name].float(), tensor.float()) for name, tensor in model.state_dict().items())


class Copies(DeviceMemory):
    """A device whose tensors are copies in RAM."""

    def __init__(self) -> None:
        super().__init__("cpu")

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone()


@pytest.mark.parametrize("budget", [0, 400])
def test_streamed_weights(model: nn.Module, budget: int):
    placed = placement.Placement(model, Copies())
    before = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    placed.enter(budget)
    assert not placed.complete
    with apply_loras(model, [lora()], CPU):
        assert close(run(model), run(merge_by_hand(0.5)))
    assert not close(run(model), run(merge_by_hand(0.5)))
    placed.leave()
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == before
