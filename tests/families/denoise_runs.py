"""A denoise node of each family with a tiny model, for tests of what holds for every family."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from invokeclone.engine.cache import ModelCache
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    Flux2VariantType,
    FluxVariantType,
    ModelFormat,
    ModelType,
)
from tests.fakes_context import FakeConfig, FakeContext
from tests.tiny_transformers import context_with

SIZE = {"width": 64, "height": 64}
STEPS = 6
FAMILIES = ("sd1", "flux", "flux2", "z_image", "sd3", "cogview4")
SOME_FAMILIES = [
    name if name in ("sd1", "z_image", "sd3") else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES
]
"""All families, of which the slower ones are in slow tests."""


class DenoiseRun:
    """A denoise node with guidance, connected to a tiny model; `loaded` is its network."""

    def __init__(self, family: str, folder: Path, cache: ModelCache, **record: Any) -> None:
        self.cache = cache
        self.context = context_with(cache)
        self.context.models.fields = record
        self.node, self._network = _MAKERS[family](self.context, folder)
        _ = self.network

    def __call__(self, **settings: Any) -> torch.Tensor:
        """Return the latents of a run under changed settings."""
        before = self.context.config.settings
        self.context.config = FakeConfig(before.model_copy(update=settings))
        try:
            output = self.node.invoke(self.context)
        finally:
            self.context.config = FakeConfig(before)
        latents: torch.Tensor = self.context.tensors.load(output.latents.latents_name)
        return latents.float()

    def shorten(self) -> None:
        """Run one step only."""
        steps = "num_steps" if hasattr(self.node, "num_steps") else "steps"
        self.node = self.node.model_copy(update={steps: 1})

    @property
    def network(self) -> Any:
        return self.context.models.load(self._network).model


Made = tuple[Any, ModelIdentifierField]


def _sd1(context: FakeContext, folder: Path) -> Made:
    from invokeclone.families.stable_diffusion.nodes.denoise import DenoiseLatentsInvocation
    from invokeclone.families.stable_diffusion.nodes.models import MainModelLoaderInvocation
    from invokeclone.families.stable_diffusion.nodes.prompts import CompelInvocation
    from invokeclone.nodes.latents.noise import NoiseInvocation

    main = context.models.add(
        folder, BaseModelType.StableDiffusion1, ModelType.Main, ModelFormat.Diffusers,
        variant="normal", prediction_type="epsilon",
    )  # fmt: skip
    model = MainModelLoaderInvocation(model=main).invoke(context)
    positive, negative = (
        CompelInvocation(prompt=text, clip=model.clip).invoke(context).conditioning for text in ("a cat", "")
    )
    node = DenoiseLatentsInvocation(
        positive_conditioning=positive, negative_conditioning=negative, unet=model.unet, steps=STEPS, cfg_scale=3.0,
        noise=NoiseInvocation(seed=3, **SIZE).invoke(context).noise,
    )  # fmt: skip
    return node, model.unet.unet


def _flux(context: FakeContext, folder: Path) -> Made:
    from invokeclone.families.flux.nodes.denoise import FluxDenoiseInvocation
    from invokeclone.families.flux.nodes.models import FluxModelLoaderInvocation
    from invokeclone.families.flux.nodes.prompts import FluxTextEncoderInvocation

    main = context.models.add(
        folder, BaseModelType.Flux, ModelType.Main, ModelFormat.Diffusers, variant=FluxVariantType.Dev
    )
    model = FluxModelLoaderInvocation(model=main).invoke(context)
    encoders = {"clip": model.clip, "t5_encoder": model.t5_encoder, "t5_max_seq_len": 256}
    positive, negative = (
        FluxTextEncoderInvocation(prompt=text, **encoders).invoke(context).conditioning for text in ("a cat", "b")
    )
    node = FluxDenoiseInvocation(
        positive_text_conditioning=positive, negative_text_conditioning=negative, transformer=model.transformer,
        num_steps=STEPS, cfg_scale=2.0, seed=7, **SIZE,
    )  # fmt: skip
    return node, model.transformer.transformer


def _flux2(context: FakeContext, folder: Path) -> Made:
    from invokeclone.families.flux2.nodes.denoise import Flux2DenoiseInvocation
    from invokeclone.families.flux2.nodes.models import Flux2KleinModelLoaderInvocation
    from invokeclone.families.flux2.nodes.prompts import Flux2KleinTextEncoderInvocation

    main = context.models.add(
        folder, BaseModelType.Flux2, ModelType.Main, ModelFormat.Diffusers, variant=Flux2VariantType.Klein4B
    )
    model = Flux2KleinModelLoaderInvocation(model=main).invoke(context)
    encoder = {"qwen3_encoder": model.qwen3_encoder, "max_seq_len": 256}
    positive, negative = (
        Flux2KleinTextEncoderInvocation(prompt=text, **encoder).invoke(context).conditioning for text in ("a cat", "b")
    )
    node = Flux2DenoiseInvocation(
        positive_text_conditioning=positive, negative_text_conditioning=negative, transformer=model.transformer,
        vae=model.vae, num_steps=STEPS, cfg_scale=2.0, seed=7, **SIZE,
    )  # fmt: skip
    return node, model.transformer.transformer


def _z_image(context: FakeContext, folder: Path) -> Made:
    from invokeclone.families.z_image.nodes.denoise import ZImageDenoiseInvocation
    from invokeclone.families.z_image.nodes.models import ZImageModelLoaderInvocation
    from invokeclone.families.z_image.nodes.prompts import ZImageTextEncoderInvocation

    model = ZImageModelLoaderInvocation(model=context.models.add_main(folder, BaseModelType.ZImage)).invoke(context)
    positive, negative = (
        ZImageTextEncoderInvocation(prompt=text, qwen3_encoder=model.qwen3_encoder).invoke(context).conditioning
        for text in ("a cat", "b")
    )
    node = ZImageDenoiseInvocation(
        positive_conditioning=positive, negative_conditioning=negative, transformer=model.transformer, steps=STEPS,
        guidance_scale=2.0, seed=7, **SIZE,
    )  # fmt: skip
    return node, model.transformer.transformer


def _sd3(context: FakeContext, folder: Path) -> Made:
    from invokeclone.families.sd3.nodes import SD3DenoiseInvocation, Sd3ModelLoaderInvocation, Sd3TextEncoderInvocation

    main = context.models.add_main(folder, BaseModelType.StableDiffusion3)
    model = Sd3ModelLoaderInvocation(model=main).invoke(context)
    encoders = {"clip_l": model.clip_l, "clip_g": model.clip_g, "t5_encoder": model.t5_encoder}
    positive, negative = (
        Sd3TextEncoderInvocation(prompt=text, **encoders).invoke(context).conditioning for text in ("a cat", "")
    )
    node = SD3DenoiseInvocation(
        positive_conditioning=positive, negative_conditioning=negative, transformer=model.transformer, steps=STEPS,
        cfg_scale=3.0, seed=7, **SIZE,
    )  # fmt: skip
    return node, model.transformer.transformer


def _cogview4(context: FakeContext, folder: Path) -> Made:
    from invokeclone.families.cogview4.nodes import (
        CogView4DenoiseInvocation,
        CogView4ModelLoaderInvocation,
        CogView4TextEncoderInvocation,
    )

    model = CogView4ModelLoaderInvocation(model=context.models.add_main(folder, BaseModelType.CogView4)).invoke(context)
    positive, negative = (
        CogView4TextEncoderInvocation(prompt=text, glm_encoder=model.glm_encoder).invoke(context).conditioning
        for text in ("a cat", "")
    )
    node = CogView4DenoiseInvocation(
        positive_conditioning=positive, negative_conditioning=negative, transformer=model.transformer, steps=STEPS,
        cfg_scale=3.0, seed=7, **SIZE,
    )  # fmt: skip
    return node, model.transformer.transformer


_MAKERS: dict[str, Callable[[FakeContext, Path], Made]] = {
    "sd1": _sd1, "flux": _flux, "flux2": _flux2, "z_image": _z_image, "sd3": _sd3, "cogview4": _cogview4,
}  # fmt: skip
