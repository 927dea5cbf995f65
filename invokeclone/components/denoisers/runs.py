"""The run of a denoise node with a positive and a negative prompt."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from invokeclone.components.denoisers.inputs import flow_inputs
from invokeclone.engine.block_cache import first_block_cache
from invokeclone.engine.conditioning import ConditioningTensors
from invokeclone.engine.denoise import OnStep
from invokeclone.engine.flow_inputs import FlowInputs
from invokeclone.engine.loaded import device_of
from invokeclone.engine.optimizations import apply_optimizations
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.metadata import check_base
from invokeclone.graph.invocations.outputs import LatentsOutput
from invokeclone.graph.vocabulary.taxonomy import BaseModelType

C = TypeVar("C", bound=ConditioningTensors)
Denoise = Callable[[Any, C, C, FlowInputs, torch.device, OnStep], torch.Tensor]
"""A family's run: from (transformer, positive, negative, inputs, device, on_step) to latents."""


def denoise_latents(
    node: Any, context: InvocationContext, base: BaseModelType, kind: type[C], denoise: Denoise[C]
) -> LatentsOutput:
    """Collect the inputs of a node with FlowDenoiseInputs, run `denoise`, and save the latents.

    Raises ValueError for a transformer of another base than `base`, and for prompts of another class than `kind`.
    """
    positive, negative = (
        context.conditioning.load(getattr(node, name).conditioning_name).single(kind, name)
        for name in ("positive_conditioning", "negative_conditioning")
    )
    loaded = context.models.load(node.transformer.transformer)
    check_base(loaded.config, base)
    settings = context.config.get()
    with loaded as transformer, first_block_cache(transformer, settings.first_block_cache_threshold):
        device = device_of(loaded, transformer)
        with apply_optimizations(transformer, settings, device):
            latents = denoise(
                transformer,
                positive,
                negative,
                flow_inputs(node, context),
                device,
                lambda state: context.util.sd_step_callback(state, base),
            )
    return LatentsOutput.build(context.tensors.save(latents), latents)
