"""Denoise tasks for the tiny UNet, and a context and inputs for nodes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from invokeclone.families.stable_diffusion import pipeline
from invokeclone.families.stable_diffusion.conditioning import BasicConditioningInfo, TextConditioning
from invokeclone.families.stable_diffusion.fields import ModelLoaderOutput
from invokeclone.families.stable_diffusion.nodes.denoise import DenoiseLatentsInvocation
from invokeclone.families.stable_diffusion.nodes.models import MainModelLoaderInvocation
from invokeclone.families.stable_diffusion.nodes.prompts import CompelInvocation
from invokeclone.families.stable_diffusion.pipeline import DenoiseTask
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.nodes.latents.noise import NoiseInvocation
from tests.fakes_context import FakeContext
from tests.tiny_models import SCHEDULER, noise_of

CPU = torch.device("cpu")

Encode = Callable[[str], TextConditioning]
MakeTask = Callable[..., DenoiseTask]
Denoise = Callable[..., torch.Tensor]


@pytest.fixture
def encode(sd1_parts: dict[str, Any]) -> Encode:
    """Encode a prompt as one row without regions."""

    def encode_prompt(prompt: str) -> TextConditioning:
        embeds = pipeline.encode(sd1_parts["tokenizer"], sd1_parts["text_encoder"], prompt, CPU)
        return TextConditioning.of_prompts([(BasicConditioningInfo(embeds), None)])

    return encode_prompt


@pytest.fixture
def make_task(encode: Encode) -> MakeTask:
    """Make a task of four steps from noise, with changes."""
    prompts = encode("a red circle"), replace(encode(""), positive=(False,))

    def make(**changes: Any) -> DenoiseTask:
        defaults = {
            "positive": prompts[0],
            "negative": prompts[1],
            "scheduler": "euler",
            "scheduler_config": SCHEDULER,
            "steps": 4,
            "noise": noise_of(1),
        }
        return DenoiseTask(**{**defaults, **changes})

    return make


@pytest.fixture
def denoise(sd1_parts: dict[str, Any], make_task: MakeTask) -> Denoise:
    """Run a task with changes; `states` collects the loop's states."""

    def run(states: list[Any] | None = None, unet: Any = None, **changes: Any) -> torch.Tensor:
        on_step = [].append if states is None else states.append
        return pipeline.denoise(unet or sd1_parts["unet"], make_task(**changes), CPU, on_step)

    return run


@pytest.fixture
def context(node_context: FakeContext) -> FakeContext:
    return node_context


@pytest.fixture
def model(context: FakeContext, sd1_identifier: ModelIdentifierField) -> ModelLoaderOutput:
    return MainModelLoaderInvocation(model=sd1_identifier).invoke(context)


@pytest.fixture
def denoise_node(context: FakeContext, model: ModelLoaderOutput) -> Any:
    """Make a denoise node that is connected as usual, with changes."""
    positive, negative = (
        CompelInvocation(prompt=prompt, clip=model.clip).invoke(context).conditioning for prompt in ("a cat", "")
    )
    noise = NoiseInvocation(seed=3, width=64, height=48).invoke(context).noise

    def make(cls: Any = DenoiseLatentsInvocation, **changes: Any) -> Any:
        inputs = {
            "positive_conditioning": positive,
            "negative_conditioning": [negative],
            "noise": noise,
            "unet": model.unet,
            "steps": 4,
        }
        return cls(**{**inputs, **changes})

    return make


def latents_of(context: FakeContext, output: Any) -> torch.Tensor:
    return context.tensors.load(output.latents.latents_name)


def settings(context: FakeContext, **changes: Any) -> None:
    context.config.settings = context.config.settings.model_copy(update=changes)
