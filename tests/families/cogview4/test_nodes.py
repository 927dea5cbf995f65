"""CogView4's nodes with a tiny model: from a prompt to an image, number formats, bad input."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from invokeclone.engine import fp8
from invokeclone.engine.cache import ModelCache
from invokeclone.families.cogview4.conditioning import CogView4ConditioningInfo
from invokeclone.families.cogview4.nodes import (
    CogView4DenoiseInvocation,
    CogView4ImageToLatentsInvocation,
    CogView4LatentsToImageInvocation,
    CogView4ModelLoaderInvocation,
    CogView4ModelLoaderOutput,
    CogView4TextEncoderInvocation,
)
from invokeclone.graph.vocabulary.fields import LatentsField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.kit.config.settings import Settings
from invokeclone.nodes.latents.noise import NoiseInvocation
from tests.fakes_context import FakeContext
from tests.tiny_transformers import context_with

WIDTH, HEIGHT = 96, 64


@pytest.fixture
def context(model_cache: ModelCache) -> FakeContext:
    return context_with(model_cache)


@pytest.fixture
def model(context: FakeContext, cogview4_folder: Path) -> CogView4ModelLoaderOutput:
    identifier = context.models.add_main(cogview4_folder, BaseModelType.CogView4)
    return CogView4ModelLoaderInvocation(model=identifier).invoke(context)


@pytest.fixture
def denoise(context: FakeContext, model: CogView4ModelLoaderOutput) -> Any:
    """Make a denoise node with changes and return its latents."""
    positive, negative = (
        CogView4TextEncoderInvocation(prompt=prompt, glm_encoder=model.glm_encoder).invoke(context).conditioning
        for prompt in ("a cat", "")
    )

    def run(**changes: Any) -> torch.Tensor:
        inputs = {
            "positive_conditioning": positive,
            "negative_conditioning": negative,
            "transformer": model.transformer,
            "width": WIDTH,
            "height": HEIGHT,
            "steps": 3,
            "seed": 7,
        }
        output = CogView4DenoiseInvocation(**{**inputs, **changes}).invoke(context)
        return context.tensors.load(output.latents.latents_name)

    return run


def stored(context: FakeContext, tensor: torch.Tensor) -> LatentsField:
    return LatentsField(latents_name=context.tensors.save(tensor))


def test_networks_compute_in_bfloat16(context: FakeContext, model: CogView4ModelLoaderOutput, denoise: Any) -> None:
    for field in (model.transformer.transformer, model.glm_encoder.text_encoder, model.vae.vae):
        with context.models.load(field) as network:
            assert network.dtype == torch.bfloat16
    latents = denoise()
    assert latents.dtype == torch.bfloat16
    assert latents.shape == (1, 16, HEIGHT // 8, WIDTH // 8)
    assert context.util.bases == {BaseModelType.CogView4}
    assert [state.step for state in context.util.steps] == [0, 1, 2, 3]


def test_8_bit_storage_computes_in_bfloat16_too(
    context: FakeContext, model: CogView4ModelLoaderOutput, denoise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = denoise()
    monkeypatch.setattr(fp8, "is_supported", lambda _: True)
    record = context.models.get_config(model.transformer.transformer)
    record.default_settings = SimpleNamespace(fp8_storage=True)
    with context.models.load(model.transformer.transformer) as transformer:
        assert transformer.transformer_blocks[0].attn1.to_q.weight.dtype == torch.float8_e4m3fn
        assert transformer.dtype == torch.bfloat16
    small = denoise()
    assert small.dtype == torch.bfloat16
    assert not torch.equal(small, plain)
    assert (small - plain).abs().mean() < 0.2 * plain.abs().mean()


def test_images_are_decoded_without_shift_and_with_levels_rounded_down(
    context: FakeContext, model: CogView4ModelLoaderOutput, denoise: Any
) -> None:
    latents = denoise()
    CogView4LatentsToImageInvocation(latents=stored(context, latents), vae=model.vae).invoke(context)
    with torch.inference_mode(), context.models.load(model.vae.vae) as vae:
        pixels = vae.decode(latents, return_dict=False)[0][0].float()
    expected = ((pixels + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    assert np.array_equal(np.asarray(context.images.last()), expected.numpy())


def test_images_are_encoded_without_shift(context: FakeContext, model: CogView4ModelLoaderOutput) -> None:
    image = Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")
    output = CogView4ImageToLatentsInvocation(image=context.images.put(image), vae=model.vae).invoke(context)
    latents = context.tensors.load(output.latents.latents_name)
    with torch.inference_mode(), context.models.load(model.vae.vae) as vae:
        pixels = torch.from_numpy(np.asarray(image, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        generator = torch.Generator().manual_seed(0)
        expected = vae.encode(pixels.to(vae.dtype)).latent_dist.sample(generator).float() * vae.config.scaling_factor
    torch.testing.assert_close(latents, expected)


def test_noise_may_be_an_input(context: FakeContext, denoise: Any) -> None:
    drawn = denoise()
    noise = NoiseInvocation(noise_type="CogView4", seed=7, width=WIDTH, height=HEIGHT).invoke(context).noise
    in_half = context.tensors.load(noise.latents_name)
    assert in_half.dtype == torch.float32
    half = torch.randn(in_half.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float16)
    assert torch.equal(denoise(noise=stored(context, half), seed=1), drawn)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "positive multiples of 32, not 0 x 64"),
        ({"height": -32}, "positive multiples of 32"),
        ({"steps": 20_000}, "steps must be at most 10000"),
        ({"denoising_start": 0.5}, "denoising_start above 0 needs latents"),
    ],
)
def test_impossible_settings_are_rejected(changes: dict[str, Any], message: str, denoise: Any) -> None:
    with pytest.raises(ValueError, match=message):
        denoise(**changes)


def test_sides_off_the_grid_and_empty_guidance_lists_are_rejected() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        CogView4DenoiseInvocation(width=80)
    with pytest.raises(ValueError, match="one number per step"):
        CogView4DenoiseInvocation(cfg_scale=[])


def test_models_and_prompts_of_other_families_are_rejected(
    context: FakeContext, model: CogView4ModelLoaderOutput, denoise: Any, sd3_folder: Path
) -> None:
    other = context.models.add_main(sd3_folder, BaseModelType.StableDiffusion3)
    with pytest.raises(ValueError, match="tiny sd3 is a sd-3 model: this node needs one of base cogview4"):
        CogView4ModelLoaderInvocation(model=other).invoke(context)
    from invokeclone.engine.conditioning import ConditioningFieldData, ConditioningTensors

    name = context.conditioning.save(ConditioningFieldData([ConditioningTensors()]))
    message = "positive_conditioning was made for another model"
    with pytest.raises(ValueError, match=message):
        denoise(positive_conditioning={"conditioning_name": name})


def test_nan_in_prompts_is_named_and_the_next_run_works(context: FakeContext, denoise: Any) -> None:
    from invokeclone.engine.conditioning import ConditioningFieldData

    broken = CogView4ConditioningInfo(torch.full((1, 16, 32), torch.nan))
    name = context.conditioning.save(ConditioningFieldData([broken]))
    with pytest.raises(ValueError, match="denoising produced NaN"):
        denoise(positive_conditioning={"conditioning_name": name})
    assert torch.isfinite(denoise()).all()


def test_a_missing_part_is_named(context: FakeContext, cogview4_folder: Path, tmp_path: Path) -> None:
    incomplete = shutil.copytree(cogview4_folder, tmp_path / "incomplete")
    shutil.rmtree(incomplete / "text_encoder")
    identifier = context.models.add_main(incomplete, BaseModelType.CogView4)
    glm = CogView4ModelLoaderInvocation(model=identifier).invoke(context).glm_encoder
    with pytest.raises(ValueError, match="incomplete has no folder text_encoder: install the complete model again"):
        CogView4TextEncoderInvocation(prompt="a cat", glm_encoder=glm).invoke(context)


def test_the_first_block_cache_is_a_setting(context: FakeContext, denoise: Any) -> None:
    expected = denoise()
    for threshold, same in ((0.0, True), (1.0, False)):
        context.config.settings = Settings(first_block_cache_threshold=threshold)
        assert torch.equal(denoise(), expected) is same
