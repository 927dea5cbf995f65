"""Weights that are copied to the device while the model computes: the next unit's during the current one's."""

from typing import Any

import pytest
import torch
from torch import nn

from invokeclone.engine.placement import Placement, size_of
from tests.counted_memory import MB, FakeMemory

WIDTH = 16
LAYER = WIDTH * WIDTH * 4


class Layers(nn.Module):
    """Layers that compute in another order than they were defined in, if `order` says so."""

    def __init__(self, count: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(count))
        self.order = list(range(count))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        for number in self.order:
            inputs = self.layers[number](inputs).relu()
        return inputs


def streamed(model: nn.Module, memory: FakeMemory, budget: int = 0) -> Placement:
    placement = Placement(model, memory)
    placement.enter(budget)
    return placement


def run(model: nn.Module, memory: FakeMemory) -> tuple[torch.Tensor, list[int]]:
    """Return the output, and how many layers were on the device while each of them computed."""
    taken: list[int] = []

    def record(*_: Any) -> None:
        taken.append(memory.taken // LAYER)

    hooks = [layer.register_forward_pre_hook(record) for layer in model.layers]
    try:
        with torch.inference_mode():
            return model(torch.ones(1, WIDTH)), taken
    finally:
        for hook in hooks:
            hook.remove()


def test_the_next_layer_is_copied_while_one_computes():
    model, memory = Layers(), FakeMemory(MB, copies_ahead=True)
    expected, _ = run(model, memory)
    placement = streamed(model, memory)
    output, taken = run(model, memory)
    assert torch.equal(output, expected)
    assert taken == [1] * 5  # the order is not known yet
    for _ in range(2):
        output, taken = run(model, memory)
        assert torch.equal(output, expected)
        assert taken == [2, 2, 2, 2, 1]
        assert memory.taken == 0
    placement.leave()
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.layers)


def test_another_order_than_in_the_last_run_is_computed_correctly():
    model, memory = Layers(), FakeMemory(MB, copies_ahead=True)
    streamed(model, memory)
    run(model, memory)
    for order in ([0, 2, 1, 4, 3], [4, 3, 2, 1, 0], [0, 0, 1], [0, 1, 2, 3, 4]):
        model.order = order
        plain = Layers()
        plain.order = order
        output, taken = run(model, memory)
        assert torch.equal(output, run(plain, memory)[0])
        assert max(taken) <= 2


def test_without_memory_for_two_layers_one_after_the_other_is_copied():
    model, memory = Layers(), FakeMemory(LAYER, copies_ahead=True)
    expected, _ = run(model, memory)
    streamed(model, memory)
    for _ in range(3):
        output, taken = run(model, memory)
        assert torch.equal(output, expected)
        assert taken == [1] * 5
    assert memory.taken == 0


def test_unused_copies_leave_with_the_model():
    model, memory = Layers(), FakeMemory(MB, copies_ahead=True)
    placement = streamed(model, memory)
    run(model, memory)
    model.order = [0, 1]
    run(model, memory)
    assert memory.taken == LAYER  # the third layer's, which was expected
    placement.leave()
    assert memory.taken == 0


@pytest.mark.parametrize("ahead", [False, True])
def test_an_error_in_a_layer_leaves_its_weights_in_ram(ahead: bool):
    model, memory = Layers(), FakeMemory(MB, copies_ahead=ahead)
    placement = streamed(model, memory)
    run(model, memory)
    with pytest.raises(RuntimeError):
        model(torch.ones(1, WIDTH + 1))
    assert torch.equal(run(model, memory)[0], run(Layers(), memory)[0])
    placement.leave()
    assert memory.taken == 0
    assert size_of(model) == 5 * LAYER
