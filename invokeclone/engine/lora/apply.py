"""Temporary application of LoRAs to a model, with exact removal.

Layers whose weights are on the device get new weights. Linear layers on the CPU, and those whose weights are streamed
to the device or stored in a compact format, keep theirs: a parallel branch computes the change. The original tensor
objects are restored, also after an error.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from invokeclone.engine.devices import DeviceMemory, is_out_of_memory
from invokeclone.engine.lora.layers import LayerChange, LoRA, Replacement
from invokeclone.engine.lora.matching import Change, LoRAPatch, assign, dense_weight, has_dense_weight
from invokeclone.graph.checkpoints import checkpoint
from invokeclone.kit import log

logger = log.get("engine.lora")
_COMPUTABLE = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Number formats in which weights can be changed; others are for storage only."""
_LINEAR = (nn.Linear, nn.Conv2d)
"""Layers whose output is linear in their weight, so that a parallel branch can compute the change."""
_SHARE_OF_FREE_MEMORY = 0.5
"""Share of the device's free memory that changed weights may take; the rest is for the model's computation."""


@contextmanager
def apply_loras(
    model: nn.Module, loras: Sequence[LoRAPatch], device: torch.device, *, optional_prefix: str = ""
) -> Iterator[None]:
    """Apply LoRAs to `model`, which computes on `device`, inside the block.

    `optional_prefix` is a prefix of layer names that the model may lack. Layers that the model does not have are
    logged. Raises ValueError for a LoRA that matches no layer at all.
    """
    active = [lora for lora in loras if lora.weight and lora.layers]
    if not active:
        yield
        return
    with ExitStack() as stack:
        patcher = _Patcher(device, stack)
        with torch.no_grad(), torch.inference_mode(mode=False):
            for module, changes in assign(model, active, optional_prefix).items():
                checkpoint()
                patcher.patch(module, changes)
        yield


@contextmanager
def widen_input(
    module: nn.Linear, change: LayerChange, strength: float, channels: int, device: torch.device
) -> Iterator[None]:
    """Let a linear layer take `channels` inputs, more than it has, inside the block.

    `change` has a column for each of them. The layer itself, with its weight and other changes, sees its own inputs.
    Raises ValueError for a change of another size.
    """
    shape = torch.Size((module.out_features, channels))
    if not change.fits(shape):
        raise ValueError(f"the change does not fit a layer of {shape[0]} outputs and {channels} inputs")
    columns = module.in_features
    weight = functional.pad(dense_weight(module), (0, channels - columns)) if not _is_product(change) else None
    with torch.no_grad(), torch.inference_mode(mode=False):
        branch = _linear_branch(module, [(change, strength)], device, weight)
    whole: list[torch.Tensor] = []

    def narrow(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        whole.append(inputs[0])
        return (inputs[0][..., :columns],)

    def add(_module: nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return branch(whole.pop(), output)

    hooks = module.register_forward_pre_hook(narrow), module.register_forward_hook(add)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Patcher:
    """Changes modules and registers their restoration with an ExitStack."""

    def __init__(self, device: torch.device, stack: ExitStack) -> None:
        self._device = device
        self._stack = stack
        self._budget = DeviceMemory(device).free() * _SHARE_OF_FREE_MEMORY if device.type != "cpu" else float("inf")

    def patch(self, module: Any, changes: Sequence[Change]) -> None:
        """Change one module."""
        weight: torch.Tensor = module.weight
        if not self._is_beside(module, changes):
            try:
                self._merge(module, changes)
            except Exception as error:
                if not is_out_of_memory(error) or not isinstance(module, _LINEAR):
                    raise
            else:
                if _is_on_device(weight):
                    self._budget -= weight.nbytes
                return
        self._compute_beside(module, changes)

    def _is_beside(self, module: Any, changes: Sequence[Change]) -> bool:
        """Return whether a module keeps its weight. Streamed weights are in RAM between uses."""
        weight: torch.Tensor = module.weight
        if weight.dtype not in _COMPUTABLE:
            return True
        if any(isinstance(change, Replacement) for change, _ in changes):
            return False
        if not _is_on_device(weight):
            return isinstance(module, nn.Linear)
        return isinstance(module, _LINEAR) and weight.nbytes > self._budget

    def _merge(self, module: Any, changes: Sequence[Change]) -> None:
        """Give a module new weights: computed from the originals on the CPU, one change after the other on a device."""
        weight, deltas = _split_replacement(module.weight.data, changes)
        if not _is_on_device(module.weight):
            weight = weight + _sum_of_deltas(module.weight.data, deltas, self._device) if deltas else weight
        else:
            for change, strength in deltas:
                delta = _delta(change, weight, torch.float32, weight.device)
                weight = weight if delta is None else weight + (delta * strength).to(weight.dtype)
        delta = _sum_of_biases(module, changes)
        bias = None if delta is None else module.bias.data + delta
        self._replace(module.weight, weight)
        if bias is not None:
            self._replace(module.bias, bias)

    def _replace(self, parameter: nn.Parameter, value: torch.Tensor) -> None:
        original = parameter.data

        def restore() -> None:
            with torch.inference_mode(mode=False):
                parameter.data = original

        self._stack.callback(restore)
        parameter.data = value

    def _compute_beside(self, module: Any, changes: Sequence[Change]) -> None:
        if isinstance(module, nn.Linear):
            branch = _linear_branch(module, changes, self._device)
        elif isinstance(module, nn.Conv2d):
            branch = _convolution_branch(module, changes, self._device)
        else:
            logger.warning("cannot change a %s with weights in %s", type(module).__name__, module.weight.dtype)
            return

        def add(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            return branch(inputs[0], output)

        self._stack.callback(module.register_forward_hook(add).remove)


def _split_replacement(weight: torch.Tensor, changes: Sequence[Change]) -> tuple[torch.Tensor, Sequence[Change]]:
    """Return the weight that a change sets, whatever its strength, or the original one; and the other changes."""
    values = [change.weight for change, _ in changes if isinstance(change, Replacement)]
    if not values:
        return weight, changes
    remaining = [(change, strength) for change, strength in changes if not isinstance(change, Replacement)]
    return values[-1].to(weight, copy=True).reshape(weight.shape), remaining


def _is_on_device(weight: torch.Tensor) -> bool:
    """Return whether a weight is on a separate device; streamed weights are in RAM."""
    return bool(weight.device.type != "cpu")


Branch = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A function of a layer's input and output that returns the output with the change, added in place."""


def _is_product(change: LayerChange) -> bool:
    """Return whether a layer's input can pass through a change's two matrices in turn."""
    return isinstance(change, LoRA) and change.is_two_matrices


def _linear_branch(
    module: nn.Linear, changes: Sequence[Change], device: torch.device, weight: torch.Tensor | None = None
) -> Branch:
    """Return the branch of a linear layer: low-rank products, and one matrix for everything else.

    Changes that depend on the weight get `weight`, by default the layer's own.
    """
    products, dense_changes = [], []
    for change, strength in changes:
        if isinstance(change, LoRA) and _is_product(change):
            down, up = (side.flatten(1).to(device) for side in (change.down, change.up))
            products.append((down, up, strength * change.scale))
        else:
            dense_changes.append((change, strength))
    delta = _dense_delta(module, dense_changes, device, weight) if dense_changes else None
    bias = _sum_of_biases(module, changes)

    def branch(inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        rows, total = inputs.reshape(-1, inputs.shape[-1]), output.reshape(-1, output.shape[-1])
        for down, up, scale in products:
            total.addmm_(functional.linear(rows, down.to(rows)) * scale, up.to(rows).T)
        if delta is not None:
            total.addmm_(rows, delta.to(rows).T)
        if bias is not None:
            total.add_(bias.to(total))
        return total.reshape(output.shape)

    return branch


def _convolution_branch(module: nn.Conv2d, changes: Sequence[Change], device: torch.device) -> Branch:
    """Return the branch of a convolution, with the module's padding, wrap-around included."""
    delta, bias = _dense_delta(module, changes, device), _sum_of_biases(module, changes)

    def branch(inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        own_bias = None if bias is None else bias.to(inputs)
        return output.add_(module._conv_forward(inputs, delta.to(inputs), own_bias))  # noqa: SLF001

    return branch


def _dense_delta(
    module: Any, changes: Sequence[Change], device: torch.device, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the sum of all changes of a module that keeps its weight; in half precision if that is packed."""
    delta = _sum_of_deltas(dense_weight(module) if weight is None else weight, changes, device)
    return delta.to(torch.bfloat16) if has_dense_weight(module) else delta


def _sum_of_deltas(weight: torch.Tensor, changes: Sequence[Change], device: torch.device) -> torch.Tensor:
    """Return the sum of all changes, each relative to the original weight, on its device; computed on `device`."""
    dtype = weight.dtype if weight.dtype in _COMPUTABLE and device.type == "cpu" else torch.float32
    total = torch.zeros(weight.shape, dtype=dtype, device=device)
    for change, strength in changes:
        delta = _delta(change, weight, dtype, device)
        total = total if delta is None else total + delta * strength
    stored = weight.dtype if weight.dtype in _COMPUTABLE else torch.float16 if device.type != "cpu" else dtype
    return total.to(weight.device, stored)


def _delta(change: LayerChange, weight: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor | None:
    return change.to(device, dtype).weight_delta(weight.to(device, dtype))


def _sum_of_biases(module: Any, changes: Sequence[Change]) -> torch.Tensor | None:
    if getattr(module, "bias", None) is None:
        return None
    deltas = [(delta, strength) for change, strength in changes if (delta := change.bias_delta()) is not None]
    if not deltas:
        return None
    bias: torch.Tensor = module.bias.data
    dtype = bias.dtype if bias.dtype in _COMPUTABLE else torch.float32
    rows = [delta.to(bias.device, dtype).reshape(bias.shape) * strength for delta, strength in deltas]
    return torch.stack(rows).sum(dim=0)
