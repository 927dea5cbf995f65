"""Z-Image's nodes with a tiny model: from a prompt to an image, parts of other models, number formats, bad input."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invokeclone.engine.cache import ModelCache
from invokeclone.families.z_image.fields import ZImageModelLoaderOutput
from invokeclone.families.z_image.nodes.autoencoder import ZImageLatentsToImageInvocation
from invokeclone.families.z_image.nodes.denoise import ZImageDenoiseInvocation, ZImageDenoiseMetaInvocation
from invokeclone.families.z_image.nodes.models import ZImageModelLoaderInvocation
from invokeclone.families.z_image.nodes.prompts import ZImageTextEncoderInvocation
from invokeclone.graph.vocabulary.fields import LatentsField, TensorField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import (
    BaseModelType,
    ModelFormat,
    ModelType,
    Qwen3VariantType,
    SubModelType,
)
from invokeclone.nodes.latents.noise import NoiseInvocation
from tests.fakes_context import FakeContext
from tests.tiny_transformers import context_with

WIDTH, HEIGHT = 96, 64


@pytest.fixture
def context(model_cache: ModelCache) -> FakeContext:
    return context_with(model_cache)


@pytest.fixture
def main(context: FakeContext, z_image_folder: Path) -> ModelIdentifierField:
    identifier: ModelIdentifierField = context.models.add_main(z_image_folder, BaseModelType.ZImage)
    return identifier


@pytest.fixture
def model(context: FakeContext, main: ModelIdentifierField) -> ZImageModelLoaderOutput:
    return ZImageModelLoaderInvocation(model=main).invoke(context)


@pytest.fixture
def inputs(context: FakeContext, model: ZImageModelLoaderOutput) -> dict[str, Any]:
    """Return the inputs of a denoise node."""
    positive, negative = (encode(context, model, prompt) for prompt in ("a cat", ""))
    return {
        "positive_conditioning": positive,
        "negative_conditioning": negative,
        "transformer": model.transformer,
        "width": WIDTH,
        "height": HEIGHT,
        "steps": 3,
        "seed": 7,
    }


@pytest.fixture
def denoise(context: FakeContext, inputs: dict[str, Any]) -> Any:
    """Make a denoise node with changes and return its latents."""

    def run(**changes: Any) -> torch.Tensor:
        output = ZImageDenoiseInvocation(**{**inputs, **changes}).invoke(context)
        return context.tensors.load(output.latents.latents_name)

    return run


def encode(context: FakeContext, model: ZImageModelLoaderOutput, prompt: str, **inputs: Any) -> Any:
    node = ZImageTextEncoderInvocation(prompt=prompt, qwen3_encoder=model.qwen3_encoder, **inputs)
    return node.invoke(context).conditioning


def without(folder: Path, target: Path, *parts: str) -> Path:
    """Copy a model's folder without some parts."""
    shutil.copytree(folder, target)
    for part in parts:
        shutil.rmtree(target / part)
    return target


def test_networks_compute_in_bfloat16(context: FakeContext, model: ZImageModelLoaderOutput, denoise: Any) -> None:
    for field in (model.transformer.transformer, model.qwen3_encoder.text_encoder, model.vae.vae):
        with context.models.load(field) as network:
            assert network.dtype == torch.bfloat16
    latents = denoise()
    assert latents.dtype == torch.bfloat16
    assert latents.shape == (1, 16, HEIGHT // 8, WIDTH // 8)
    assert context.util.bases == {BaseModelType.ZImage}
    assert [state.step for state in context.util.steps] == [0, 1, 2, 3]


def test_images_are_decoded_with_shift_and_with_levels_rounded_down(
    context: FakeContext, model: ZImageModelLoaderOutput, denoise: Any
) -> None:
    latents = denoise()
    field = LatentsField(latents_name=context.tensors.save(latents))
    ZImageLatentsToImageInvocation(latents=field, vae=model.vae).invoke(context)
    with torch.inference_mode(), context.models.load(model.vae.vae) as vae:
        scaled = latents.float() / vae.config.scaling_factor + vae.config.shift_factor
        pixels = vae.decode(scaled.to(vae.dtype), return_dict=False)[0][0].float()
    expected = ((pixels + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    difference = np.asarray(context.images.last()).astype(int) - expected.numpy().astype(int)
    assert np.abs(difference).max() <= 1


def test_noise_is_drawn_in_float32_and_may_be_an_input(denoise: Any, context: FakeContext) -> None:
    noise = NoiseInvocation(noise_type="Z-Image", seed=7, width=WIDTH, height=HEIGHT).invoke(context).noise
    assert torch.equal(denoise(noise=noise, seed=1), denoise())


def test_the_negative_prompt_acts_only_with_guidance(denoise: Any) -> None:
    plain = denoise()
    assert torch.equal(plain, denoise(negative_conditioning=None))
    guided = denoise(guidance_scale=3.0)
    assert not torch.equal(plain, guided)
    assert torch.equal(plain, denoise(guidance_scale=3.0, negative_conditioning=None))


def test_latents_are_continued_without_new_noise(context: FakeContext, denoise: Any) -> None:
    half = LatentsField(latents_name=context.tensors.save(denoise(steps=4, denoising_end=0.5)))
    rest = denoise(steps=4, denoising_start=0.5, latents=half, add_noise=False)
    assert torch.equal(rest, denoise(steps=4))
    assert not torch.equal(rest, denoise(steps=4, denoising_start=0.5, latents=half))


def test_prompts_of_regions(context: FakeContext, model: ZImageModelLoaderOutput, denoise: Any) -> None:
    left = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    left[..., : WIDTH // 2] = True
    mask = TensorField(tensor_name=context.tensors.save(left))
    region = encode(context, model, "a dog", mask=mask)
    assert region.mask == mask
    both = [encode(context, model, "a cat"), region]
    assert not torch.equal(denoise(positive_conditioning=both), denoise())
    with pytest.raises(ValueError, match="positive_conditioning is an empty list"):
        denoise(positive_conditioning=[])


def test_the_parameters_are_added_to_the_metadata(context: FakeContext, inputs: dict[str, Any], denoise: Any) -> None:
    node = ZImageDenoiseMetaInvocation(**inputs, shift=2.0, metadata={"positive_prompt": "a cat"})
    output = node.invoke(context)
    assert torch.equal(context.tensors.load(output.latents.latents_name), denoise(shift=2.0))
    expected = {"positive_prompt": "a cat", "steps": 3, "seed": 7, "guidance": 1.0, "scheduler": "euler", "shift": 2.0}
    assert expected.items() <= output.metadata.root.items()


def test_parts_come_from_the_selected_source_or_an_installed_model(
    context: FakeContext, z_image_folder: Path, main: ModelIdentifierField, tmp_path: Path
) -> None:
    bare = without(z_image_folder, tmp_path / "bare", "vae", "text_encoder", "tokenizer")
    identifier = context.models.add_main(bare, BaseModelType.ZImage)
    chosen = ZImageModelLoaderInvocation(model=identifier, qwen3_source_model=main).invoke(context)
    assert chosen.transformer.transformer.name == "bare"
    assert {chosen.vae.vae.name, chosen.qwen3_encoder.tokenizer.name} == {main.name}
    assert ZImageModelLoaderInvocation(model=identifier).invoke(context) == chosen, "the complete model is installed"
    del context.models.records[main.key]
    with pytest.raises(ValueError, match=r"bare comes without a Qwen3 encoder: install one, .* as qwen3_encoder_model"):
        ZImageModelLoaderInvocation(model=identifier).invoke(context)
    qwen3 = context.models.add(
        without(z_image_folder, tmp_path / "qwen3", "vae", "transformer"),
        BaseModelType.Any,
        ModelType.Qwen3Encoder,
        ModelFormat.Qwen3Encoder,
        variant=Qwen3VariantType.Qwen3_4B,
    )
    with pytest.raises(ValueError, match=r"bare comes without a VAE of FLUX.1: .* as vae_model"):
        ZImageModelLoaderInvocation(model=identifier).invoke(context)
    vae = context.models.add(z_image_folder, BaseModelType.Flux, ModelType.VAE, ModelFormat.Checkpoint)
    output = ZImageModelLoaderInvocation(model=identifier).invoke(context)
    assert output.vae.vae.name == vae.name
    assert output.qwen3_encoder.text_encoder.name == qwen3.name
    assert encode(context, output, "a cat") is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "positive multiples of 16, not 0 x 64"),
        ({"steps": 20_000}, "steps must be at most 10000"),
        ({"denoising_start": 0.5}, "denoising_start above 0 needs latents"),
    ],
)
def test_impossible_settings_are_rejected(changes: dict[str, Any], message: str, denoise: Any) -> None:
    with pytest.raises(ValueError, match=message):
        denoise(**changes)


def test_models_and_prompts_of_other_families_are_rejected(
    context: FakeContext, main: ModelIdentifierField, denoise: Any, sd3_folder: Path
) -> None:
    other = context.models.add_main(sd3_folder, BaseModelType.StableDiffusion3)
    with pytest.raises(ValueError, match="tiny sd3 is a sd-3 model: this node needs one of base z-image"):
        ZImageModelLoaderInvocation(model=other).invoke(context)
    from invokeclone.engine.conditioning import ConditioningFieldData, ConditioningTensors

    name = context.conditioning.save(ConditioningFieldData([ConditioningTensors()]))
    with pytest.raises(ValueError, match="positive_conditioning was made for another model"):
        denoise(positive_conditioning={"conditioning_name": name})
    with pytest.raises(ValueError, match=r"Z-Image models have no part|has no folder"):
        context.models.load(main.part(SubModelType.TextEncoder2))
