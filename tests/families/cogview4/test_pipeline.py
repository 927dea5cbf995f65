"""CogView4's prompt and denoise run with tiny networks, against diffusers' own pipeline."""

from typing import Any

import pytest
import torch

from invokeclone.engine.block_cache import first_block_cache
from invokeclone.engine.flow_inputs import FlowInputs
from invokeclone.families.cogview4 import pipeline
from invokeclone.families.cogview4.conditioning import CogView4ConditioningInfo

CPU = torch.device("cpu")
WIDTH, HEIGHT = 96, 64


@pytest.fixture(scope="module")
def reference(cogview4_parts: dict[str, Any]) -> Any:
    from diffusers.pipelines.cogview4.pipeline_cogview4 import CogView4Pipeline

    made = CogView4Pipeline(**cogview4_parts)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def prompts(cogview4_parts: dict[str, Any]) -> tuple[CogView4ConditioningInfo, CogView4ConditioningInfo]:
    """Return a long and an empty prompt, which differ in their numbers of tokens."""
    positive, negative = (
        pipeline.encode(cogview4_parts["tokenizer"], cogview4_parts["text_encoder"], prompt, CPU)
        for prompt in ("a red fox in the snow", "")
    )
    return positive, negative


def run(
    parts: dict[str, Any], prompts: tuple[CogView4ConditioningInfo, CogView4ConditioningInfo], **settings: Any
) -> torch.Tensor:
    inputs = FlowInputs(**{"width": WIDTH, "height": HEIGHT, "steps": 4, "seed": 5, "cfg_scale": 4.0, **settings})
    return pipeline.denoise(parts["transformer"], *prompts, inputs, CPU, [].append)


def noise(seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, 16, HEIGHT // 8, WIDTH // 8), generator=generator, dtype=torch.float16).float()


@pytest.mark.parametrize("prompt", ["", "a cat", "a red fox in the snow", "fourteen chars", "abc " * 300])
def test_prompt_encoding_matches_diffusers(prompt: str, cogview4_parts: dict[str, Any], reference: Any) -> None:
    info = pipeline.encode(cogview4_parts["tokenizer"], cogview4_parts["text_encoder"], prompt, CPU)
    with torch.inference_mode():
        expected = reference._get_glm_embeds(prompt, device=CPU)
    assert torch.equal(info.glm_embeds, expected)
    assert info.glm_embeds.shape[1] % 16 == 0
    assert info.glm_embeds.shape[1] <= 1024


def test_a_truncated_prompt_is_logged(cogview4_parts: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    pipeline.encode(cogview4_parts["tokenizer"], cogview4_parts["text_encoder"], "abc " * 300, CPU)
    assert "longer than 1024 tokens" in caplog.text


def test_latents_match_diffusers(cogview4_parts: dict[str, Any], reference: Any, prompts: Any) -> None:
    expected = reference(
        "a red fox in the snow",
        negative_prompt="",
        width=WIDTH,
        height=HEIGHT,
        timesteps=[1000, 750, 500, 250],
        sigmas=[1.0, 0.75, 0.5, 0.25],
        guidance_scale=4.0,
        latents=noise(),
        output_type="latent",
    ).images
    result = run(cogview4_parts, prompts)
    assert (expected - noise()).abs().mean() > 0.1, "the network changes the latents"
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-5)


def test_the_network_receives_unshifted_times_of_the_clipped_schedule() -> None:
    schedule = pipeline.schedule_of(FlowInputs(512, 512, 4, start=0.3), CPU)
    assert schedule.timesteps.tolist() == pytest.approx([700, 500, 250])
    factor = 0.25 + 0.75 * (1024 / 256) ** 0.5
    assert schedule.levels.tolist() == pytest.approx([factor / (factor + 1 / t - 1) for t in (0.7, 0.5, 0.25)] + [0])


def test_guidance_may_differ_per_step(cogview4_parts: dict[str, Any], prompts: Any) -> None:
    same = run(cogview4_parts, prompts, cfg_scale=[4.0] * 4)
    assert torch.equal(same, run(cogview4_parts, prompts))
    assert not torch.allclose(same, run(cogview4_parts, prompts, cfg_scale=[4.0, 1.0, 1.0, 1.0]), atol=1e-2)


def test_rows_of_a_batch_equal_single_runs(cogview4_parts: dict[str, Any], prompts: Any) -> None:
    images = torch.cat([noise(1), noise(2)])
    both = run(cogview4_parts, prompts, latents=images, start=0.4)
    for row in range(2):
        alone = run(cogview4_parts, prompts, latents=images[row : row + 1], start=0.4)
        torch.testing.assert_close(both[row : row + 1], alone, atol=2e-5, rtol=1e-5)


def test_prompts_of_another_model_are_rejected(cogview4_parts: dict[str, Any], prompts: Any) -> None:
    other = CogView4ConditioningInfo(torch.zeros(1, 16, 48))
    with pytest.raises(ValueError, match=r"negative prompt .* another model's GLM \(width 48, not 32\)"):
        run(cogview4_parts, (prompts[0], other))


def test_blocks_are_cached_for_each_side_of_the_guidance(cogview4_parts: dict[str, Any], prompts: Any) -> None:
    transformer = cogview4_parts["transformer"]
    inputs = {"cfg_scale": [1.0, 3.0, 3.0, 1.0]}
    expected = run(cogview4_parts, prompts, **inputs)
    calls: list[int] = []
    hook = transformer.transformer_blocks[-1].attn1.to_q.register_forward_hook(lambda *_: calls.append(1))
    try:
        with first_block_cache(transformer, 0.0):
            assert torch.equal(run(cogview4_parts, prompts, **inputs), expected)
        assert len(calls) == 6
        with first_block_cache(transformer, 100.0):
            assert not torch.equal(run(cogview4_parts, prompts, **inputs), expected)
        assert len(calls) == 6 + 2
    finally:
        hook.remove()
    assert torch.equal(run(cogview4_parts, prompts, **inputs), expected)
