"""Stable Diffusion 3's nodes with a tiny model: parts of other models, images, masks, bad input."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from invokeclone.engine.cache import ModelCache
from invokeclone.families.sd3.nodes import (
    SD3DenoiseInvocation,
    SD3ImageToLatentsInvocation,
    SD3LatentsToImageInvocation,
    Sd3ModelLoaderInvocation,
    Sd3ModelLoaderOutput,
    Sd3TextEncoderInvocation,
)
from invokeclone.graph.vocabulary.fields import DenoiseMaskField, LatentsField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ClipVariantType, ModelFormat, ModelType
from tests.fakes_context import FakeContext
from tests.tiny_transformers import context_with, make_t5

WIDTH, HEIGHT = 96, 64


@pytest.fixture
def context(model_cache: ModelCache) -> FakeContext:
    return context_with(model_cache)


@pytest.fixture
def main(context: FakeContext, sd3_folder: Path) -> ModelIdentifierField:
    identifier: ModelIdentifierField = context.models.add_main(sd3_folder, BaseModelType.StableDiffusion3)
    return identifier


@pytest.fixture
def model(context: FakeContext, main: ModelIdentifierField) -> Sd3ModelLoaderOutput:
    return Sd3ModelLoaderInvocation(model=main).invoke(context)


@pytest.fixture
def denoise(context: FakeContext, model: Sd3ModelLoaderOutput) -> Any:
    """Make a denoise node with changes and return its latents."""
    inputs = {
        "positive_conditioning": encode(context, model, "a cat"),
        "negative_conditioning": encode(context, model, ""),
        "transformer": model.transformer,
        "width": WIDTH,
        "height": HEIGHT,
        "steps": 3,
        "seed": 7,
    }

    def run(**changes: Any) -> torch.Tensor:
        output = SD3DenoiseInvocation(**{**inputs, **changes}).invoke(context)
        return context.tensors.load(output.latents.latents_name)

    return run


def encode(context: FakeContext, model: Sd3ModelLoaderOutput, prompt: str, **changes: Any) -> Any:
    inputs = {"clip_l": model.clip_l, "clip_g": model.clip_g, "t5_encoder": model.t5_encoder, "prompt": prompt}
    return Sd3TextEncoderInvocation(**{**inputs, **changes}).invoke(context).conditioning


def conditioning_of(context: FakeContext, field: Any) -> Any:
    return context.conditioning.load(field.conditioning_name).conditionings[0]


def stored(context: FakeContext, tensor: torch.Tensor) -> LatentsField:
    return LatentsField(latents_name=context.tensors.save(tensor))


def photo() -> Image.Image:
    return Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")


def test_an_image_from_a_prompt(context: FakeContext, model: Sd3ModelLoaderOutput, denoise: Any) -> None:
    latents = denoise()
    assert latents.dtype == torch.float32
    assert context.util.bases == {BaseModelType.StableDiffusion3}
    SD3LatentsToImageInvocation(latents=stored(context, latents), vae=model.vae).invoke(context)
    assert context.images.last().size == (WIDTH, HEIGHT)


def test_prompts_work_without_t5(context: FakeContext, model: Sd3ModelLoaderOutput, denoise: Any) -> None:
    without = encode(context, model, "a cat", t5_encoder=None)
    assert conditioning_of(context, without).t5_embeds is None
    assert not torch.allclose(denoise(positive_conditioning=without), denoise(), atol=1e-3)


def test_text_encoders_of_other_models(
    context: FakeContext, main: ModelIdentifierField, model: Sd3ModelLoaderOutput, sd3_folder: Path, tmp_path: Path
) -> None:
    """The same encoders as models of their own give the same prompt."""
    for source, target in (("tokenizer_3", "tokenizer_2"), ("text_encoder_3", "text_encoder_2")):
        shutil.copytree(sd3_folder / source, tmp_path / "t5" / target)
    for source, target in (("tokenizer_2", "tokenizer"), ("text_encoder_2", "text_encoder")):
        shutil.copytree(sd3_folder / source, tmp_path / "clip g" / target)
    add = context.models.add
    t5 = add(tmp_path / "t5", BaseModelType.Any, ModelType.T5Encoder, ModelFormat.T5Encoder)
    clip = add(
        tmp_path / "clip g", BaseModelType.Any, ModelType.CLIPEmbed, ModelFormat.Diffusers, variant=ClipVariantType.G
    )
    separate = Sd3ModelLoaderInvocation(model=main, t5_encoder_model=t5, clip_g_model=clip).invoke(context)
    assert separate.clip_l == model.clip_l
    assert separate.clip_g.text_encoder.key == "clip g"
    assert separate.t5_encoder.text_encoder.key == "t5"
    expected, result = (conditioning_of(context, encode(context, loaded, "a cat")) for loaded in (model, separate))
    assert torch.equal(result.clip_g_embeds, expected.clip_g_embeds)
    assert torch.equal(result.t5_embeds, expected.t5_embeds)


def test_clip_skip_shortens_the_encoder(context: FakeContext, model: Sd3ModelLoaderOutput) -> None:
    skipped = model.clip_l.model_copy(update={"skipped_layers": 1})
    plain, shorter = (
        conditioning_of(context, encode(context, model, "a cat", clip_l=clip)) for clip in (model.clip_l, skipped)
    )
    assert not torch.allclose(shorter.clip_l_embeds, plain.clip_l_embeds, atol=1e-3)


def test_missing_encoders_are_named(context: FakeContext, sd3_folder: Path, tmp_path: Path) -> None:
    incomplete = shutil.copytree(sd3_folder, tmp_path / "incomplete")
    for part in ("text_encoder_3", "tokenizer_3", "vae"):
        shutil.rmtree(incomplete / part)
    identifier = context.models.add_main(incomplete, BaseModelType.StableDiffusion3)
    model = Sd3ModelLoaderInvocation(model=identifier).invoke(context)
    with pytest.raises(ValueError, match=r"incomplete has no T5 encoder .*select a separate T5 encoder, or leave"):
        encode(context, model, "a cat")
    assert encode(context, model, "a cat", t5_encoder=None)
    with pytest.raises(ValueError, match="incomplete has no VAE"):
        SD3LatentsToImageInvocation(latents=stored(context, torch.zeros(1, 16, 8, 8)), vae=model.vae).invoke(context)


def test_a_model_without_t5_uses_an_installed_encoder(
    context: FakeContext, sd3_folder: Path, model: Sd3ModelLoaderOutput, tmp_path: Path
) -> None:
    incomplete = shutil.copytree(sd3_folder, tmp_path / "incomplete")
    for source, target in (("tokenizer_3", "tokenizer_2"), ("text_encoder_3", "text_encoder_2")):
        shutil.move(incomplete / source, tmp_path / "t5" / target)
    context.models.add(tmp_path / "t5", BaseModelType.Any, ModelType.T5Encoder, ModelFormat.T5Encoder)
    identifier = context.models.add_main(incomplete, BaseModelType.StableDiffusion3)
    other = Sd3ModelLoaderInvocation(model=identifier).invoke(context)
    expected, result = (conditioning_of(context, encode(context, loaded, "a cat")) for loaded in (model, other))
    assert torch.equal(result.t5_embeds, expected.t5_embeds)
    assert ("info", "incomplete comes without a T5 encoder: t5 is used") in context.logger.lines
    assert model.t5_encoder.text_encoder.key == "tiny sd3", "a model with T5 uses its own"


def test_a_folder_may_have_only_the_transformer(context: FakeContext, sd3_folder: Path, denoise: Any) -> None:
    identifier = context.models.add_main(sd3_folder / "transformer", BaseModelType.StableDiffusion3)
    alone = Sd3ModelLoaderInvocation(model=identifier).invoke(context).transformer
    assert torch.equal(denoise(transformer=alone), denoise())


def test_image_to_image_and_masks(context: FakeContext, model: Sd3ModelLoaderOutput, denoise: Any) -> None:
    image = context.images.put(photo())
    latents = SD3ImageToLatentsInvocation(image=image, vae=model.vae).invoke(context).latents
    original = context.tensors.load(latents.latents_name)
    everything = denoise(latents=latents, denoising_start=0.4)

    def masked(keep: torch.Tensor, **changes: Any) -> torch.Tensor:
        mask = DenoiseMaskField(mask_name=context.tensors.save(keep), gradient=False)
        return denoise(**{"latents": latents, "denoising_start": 0.4, "denoise_mask": mask, **changes})

    assert torch.equal(masked(torch.zeros(1, 1, HEIGHT, WIDTH)), everything)
    torch.testing.assert_close(masked(torch.ones(1, 1, HEIGHT, WIDTH)), original)
    half = torch.zeros(1, 1, HEIGHT, WIDTH)
    half[..., WIDTH // 2 :] = 1.0
    partly = masked(half)
    torch.testing.assert_close(partly[..., WIDTH // 16 :], original[..., WIDTH // 16 :])
    assert not torch.allclose(partly[..., : WIDTH // 16], original[..., : WIDTH // 16], atol=1e-2)
    gray = masked(torch.full((1, 1, HEIGHT, WIDTH), 0.7))
    assert not torch.allclose(gray, original, atol=1e-2), "gray joins once the noise is low enough"
    assert not torch.allclose(gray, everything, atol=1e-2)
    with pytest.raises(ValueError, match="denoise_mask needs the latents"):
        masked(half, latents=None, denoising_start=0.0)


def test_a_run_that_starts_at_its_end_returns_the_latents(context: FakeContext, denoise: Any) -> None:
    latents = torch.randn(1, 16, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(denoise(latents=stored(context, latents), denoising_start=1.0), latents)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("noise", torch.zeros(1, 4, 8, 12), "noise must be 16 x 8 x 12"),
        ("latents", torch.zeros(1, 16, 8, 8), "latents must be 16 x 8 x 12"),
        ("latents", torch.full((1, 16, 8, 12), torch.nan), "latents has NaN or infinite values"),
        ("noise", torch.full((1, 16, 8, 12), torch.inf), "noise has NaN or infinite values"),
    ],
)
def test_unsuitable_tensors_are_named(
    name: str, tensor: torch.Tensor, message: str, context: FakeContext, denoise: Any
) -> None:
    with pytest.raises(ValueError, match=message):
        denoise(**{name: stored(context, tensor)})


def test_nan_latents_are_named_when_decoding(context: FakeContext, model: Sd3ModelLoaderOutput) -> None:
    latents = stored(context, torch.full((1, 16, 8, 8), torch.nan))
    with pytest.raises(ValueError, match="the latents to decode have NaN"):
        SD3LatentsToImageInvocation(latents=latents, vae=model.vae).invoke(context)


def test_models_of_other_kinds_are_rejected(
    context: FakeContext, main: ModelIdentifierField, cogview4_folder: Path, denoise: Any
) -> None:
    other = context.models.add_main(cogview4_folder, BaseModelType.CogView4)
    for field, kind in (
        ("t5_encoder", "t5_encoder"),
        ("clip_l", "clip_embed"),
        ("clip_g", "clip_embed"),
        ("vae", "vae"),
    ):
        with pytest.raises(ValueError, match=f"type main: select one of type {kind}"):
            Sd3ModelLoaderInvocation(model=main, **{f"{field}_model": other}).invoke(context)
    with pytest.raises(ValueError, match="needs one of base sd-3"):
        Sd3ModelLoaderInvocation(model=other).invoke(context)
    transformer = {"transformer": other.model_copy(update={"submodel_type": "transformer"}), "loras": []}
    with pytest.raises(ValueError, match="tiny cogview4 is a cogview4 model"):
        denoise(transformer=transformer)


def test_loras_of_text_encoders_are_rejected(
    context: FakeContext, main: ModelIdentifierField, model: Sd3ModelLoaderOutput
) -> None:
    clip = model.clip_l.model_copy(update={"loras": [LoRAField(lora=main, weight=1.0)]})
    with pytest.raises(ValueError, match="LoRAs are not supported"):
        encode(context, model, "a cat", clip_l=clip)


def test_a_t5_encoder_of_another_size_is_named(
    context: FakeContext, main: ModelIdentifierField, model: Sd3ModelLoaderOutput, tmp_path: Path, denoise: Any
) -> None:
    tokenizer, encoder = make_t5(48)
    tokenizer.save_pretrained(tmp_path / "small t5" / "tokenizer_2")
    encoder.save_pretrained(tmp_path / "small t5" / "text_encoder_2")
    t5 = context.models.add(tmp_path / "small t5", BaseModelType.Any, ModelType.T5Encoder, ModelFormat.T5Encoder)
    small = Sd3ModelLoaderInvocation(model=main, t5_encoder_model=t5).invoke(context)
    with pytest.raises(ValueError, match="T5 encoder of another size"):
        denoise(positive_conditioning=encode(context, small, "a cat"))


def test_main_models_are_accepted_as_text_encoders(
    context: FakeContext, main: ModelIdentifierField, model: Sd3ModelLoaderOutput
) -> None:
    """InvokeAI's web UI lists main models that include an encoder among the encoders, and selects the first."""
    same = Sd3ModelLoaderInvocation(model=main, t5_encoder_model=main, clip_l_model=main, clip_g_model=main)
    assert same.invoke(context) == model
