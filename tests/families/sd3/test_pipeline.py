"""Stable Diffusion 3's prompt and denoise run with tiny networks, against diffusers' own pipeline."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from invokeclone.components.text_encoders.encode import encode_t5
from invokeclone.engine.flow_inputs import FlowInputs
from invokeclone.families.sd3 import pipeline
from invokeclone.families.sd3.conditioning import SD3ConditioningInfo

CPU = torch.device("cpu")
WIDTH, HEIGHT = 96, 64
LONG = "a red fox in the snow and a cat " * 12

Encode = Callable[..., SD3ConditioningInfo]


@pytest.fixture(scope="module")
def reference(sd3_parts: dict[str, Any]) -> Callable[[bool], Any]:
    """Make diffusers' pipeline, with or without T5. InvokeAI does not shift the schedule."""
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    def make(with_t5: bool) -> Any:
        parts = sd3_parts | {"scheduler": FlowMatchEulerDiscreteScheduler(shift=1.0)}
        if not with_t5:
            parts |= {"text_encoder_3": None, "tokenizer_3": None}
        made = StableDiffusion3Pipeline(**parts)
        made.set_progress_bar_config(disable=True)
        return made

    return make


@pytest.fixture(scope="module")
def encode(sd3_parts: dict[str, Any]) -> Encode:
    """Encode a prompt, with or without T5."""

    def run(prompt: str, *, with_t5: bool = True) -> SD3ConditioningInfo:
        clip_l, clip_g = (
            pipeline.encode_clip(sd3_parts[f"tokenizer{end}"], sd3_parts[f"text_encoder{end}"], prompt, CPU)
            for end in ("", "_2")
        )
        t5 = encode_t5(sd3_parts["tokenizer_3"], sd3_parts["text_encoder_3"], prompt, pipeline.T5_TOKENS, CPU)
        return SD3ConditioningInfo(*clip_l, *clip_g, t5 if with_t5 else None)

    return run


def run(parts: dict[str, Any], prompts: tuple[SD3ConditioningInfo, ...], **settings: Any) -> torch.Tensor:
    inputs = FlowInputs(**{"width": WIDTH, "height": HEIGHT, "steps": 4, "seed": 5, "cfg_scale": 4.0, **settings})
    return pipeline.denoise(parts["transformer"], prompts[0], prompts[1], inputs, CPU, [].append)


def noise(seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, 16, HEIGHT // 8, WIDTH // 8), generator=generator, dtype=torch.float16).float()


@pytest.mark.parametrize("with_t5", [True, False])
@pytest.mark.parametrize("prompt", ["", "a cat (with) weights+", LONG])
def test_prompt_encoding_matches_diffusers(
    prompt: str, with_t5: bool, sd3_parts: dict[str, Any], encode: Encode, reference: Any
) -> None:
    joined = pipeline.join(encode(prompt, with_t5=with_t5), sd3_parts["transformer"].config, "positive")
    with torch.inference_mode():
        embeds, _, pooled, _ = reference(with_t5).encode_prompt(
            prompt, None, None, do_classifier_free_guidance=False, device=CPU
        )
    assert joined.embeds.shape == (1, 77 + 256, 64)
    torch.testing.assert_close(joined.embeds, embeds)
    torch.testing.assert_close(joined.pooled, pooled)


@pytest.mark.parametrize("with_t5", [True, False])
def test_latents_match_diffusers(with_t5: bool, sd3_parts: dict[str, Any], encode: Encode, reference: Any) -> None:
    prompts = tuple(encode(prompt, with_t5=with_t5) for prompt in ("a red fox", "blurry"))
    expected = reference(with_t5)(
        "a red fox",
        negative_prompt="blurry",
        width=WIDTH,
        height=HEIGHT,
        sigmas=[1.0, 0.75, 0.5, 0.25],
        guidance_scale=4.0,
        latents=noise(),
        output_type="latent",
    ).images
    result = run(sd3_parts, prompts)
    assert (expected - noise()).abs().mean() > 0.1, "the network changes the latents"
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-5)


def test_guidance_may_differ_per_step(sd3_parts: dict[str, Any], encode: Encode) -> None:
    prompts = encode("a cat"), encode("")
    same = run(sd3_parts, prompts, cfg_scale=[4.0] * 4)
    assert torch.equal(same, run(sd3_parts, prompts))
    assert not torch.allclose(same, run(sd3_parts, prompts, cfg_scale=[4.0, 1.0, 1.0, 1.0]), atol=1e-2)


def test_rows_of_a_batch_equal_single_runs(sd3_parts: dict[str, Any], encode: Encode) -> None:
    prompts, images = (encode("a cat"), encode("")), torch.cat([noise(1), noise(2)])
    both = run(sd3_parts, prompts, latents=images, start=0.4)
    for row in range(2):
        alone = run(sd3_parts, prompts, latents=images[row : row + 1], start=0.4)
        torch.testing.assert_close(both[row : row + 1], alone, atol=2e-5, rtol=1e-5)


def test_encoders_of_other_models_are_rejected(sd3_parts: dict[str, Any], encode: Encode) -> None:
    info = encode("a cat")
    config = sd3_parts["transformer"].config
    swapped = SD3ConditioningInfo(
        info.clip_g_pooled_embeds, info.clip_g_embeds, info.clip_g_pooled_embeds, info.clip_g_embeds, None
    )
    with pytest.raises(ValueError, match=r"negative prompt .*together 64 wide, not 56"):
        pipeline.join(swapped, config, "negative")
    info.t5_embeds = torch.zeros(1, 256, 48)
    with pytest.raises(ValueError, match=r"T5 encoder of another size \(width 48, not 64\)"):
        pipeline.join(info, config, "positive")


def test_text_encoders_without_projection_are_rejected(sd1_parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no projection, which Stable Diffusion 3 needs"):
        pipeline.encode_clip(sd1_parts["tokenizer"], sd1_parts["text_encoder"], "a cat", CPU)


def test_images_larger_than_the_position_embedding_are_rejected(sd3_parts: dict[str, Any], encode: Encode) -> None:
    with pytest.raises(ValueError, match="at most 192 pixels, not 208 x 64"):
        run(sd3_parts, (encode("a cat"), encode("")), width=208)
