"""Z-Image's transformer as a function of latents, time and conditioning."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from invokeclone.engine.denoise import OnStep
from invokeclone.families.z_image.conditioning import ZImageConditioning
from invokeclone.graph.context import PipelineIntermediateState

TRAINING_STEPS = 1000
_MASKED_LAYERS = 2
"""Masks of regions act on every second layer."""


@dataclass
class ZImageCall:
    """A call of the transformer: latents (batch, 16, 1, height, width) as a list, time (batch), text per row."""

    index: int
    """Number of the step, from 0, of `count`."""
    count: int
    latents: list[torch.Tensor]
    time: torch.Tensor
    text: list[torch.Tensor]
    samples: dict[int, torch.Tensor] = field(default_factory=dict)
    """What is added to the output of each layer, by its number."""

    def add_samples(self, samples: dict[int, torch.Tensor]) -> None:
        """Add to the outputs of layers."""
        for layer, sample in samples.items():
            self.samples[layer] = self.samples[layer] + sample if layer in self.samples else sample


ZImageControl = Callable[[ZImageCall], None]
"""Adds its samples to a call, in which it may be inactive."""


@dataclass
class ZImageDenoiser:
    """The transformer with its controls; `steps` are the step numbers of the run's calls of it."""

    transformer: Any
    steps: Sequence[int]
    controls: Sequence[ZImageControl] = ()
    _position: int = 0

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: ZImageConditioning) -> torch.Tensor:
        """Return the velocity in float32; the transformer receives 1 - level as time, and predicts the negative."""
        rows, dtype = len(latents), self.transformer.dtype
        call = ZImageCall(
            self.steps[min(self._position, len(self.steps) - 1)],
            self.steps[-1] + 1,
            list(latents.to(dtype).unsqueeze(2)),
            (1.0 - timestep / TRAINING_STEPS).to(dtype).expand(rows),
            [conditioning.text[0]] * rows,
        )
        for control in self.controls:
            control(call)
        with _regions(self.transformer, conditioning.attention_mask):
            output = self.transformer(
                call.latents, call.time, call.text, controlnet_block_samples=call.samples or None, return_dict=False
            )[0]
        return -torch.stack([row.squeeze(1) for row in output]).float()

    def counting(self, on_step: OnStep) -> OnStep:
        """Return `on_step` extended to keep track of the position in the run."""

        def count(state: PipelineIntermediateState) -> None:
            self._position = state.step
            on_step(state)

        return count


@contextmanager
def _regions(transformer: Any, mask: torch.Tensor | None) -> Iterator[None]:
    """Restrict the attention of every second layer to the mask inside the block."""
    if mask is None:
        yield
        return

    def restrict(_module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0], mask, *inputs[2:])

    hooks = [layer.register_forward_pre_hook(restrict) for layer in transformer.layers[::_MASKED_LAYERS]]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
