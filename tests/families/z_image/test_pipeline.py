"""Z-Image's prompt and denoise run with tiny networks, against diffusers' own pipeline."""

from typing import Any

import pytest
import torch

from invokeclone.engine.flow_inputs import FlowInputs
from invokeclone.families.z_image import pipeline
from invokeclone.families.z_image.conditioning import PromptOfRegion, ZImageConditioning, build_conditioning
from invokeclone.families.z_image.pipeline import ZImageDenoiseTask

CPU = torch.device("cpu")
WIDTH, HEIGHT = 96, 64
PROMPTS = ("a red fox in the snow", "blurry")


@pytest.fixture(scope="module")
def reference(z_image_parts: dict[str, Any]) -> Any:
    from diffusers.pipelines.z_image.pipeline_z_image import ZImagePipeline

    made = ZImagePipeline(**z_image_parts)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def prompts(z_image_parts: dict[str, Any]) -> list[ZImageConditioning]:
    """Return a long and a short prompt."""
    encoder = z_image_parts["text_encoder"].model
    infos = [pipeline.encode(z_image_parts["tokenizer"], encoder, prompt, CPU) for prompt in PROMPTS]
    return [ZImageConditioning(info.prompt_embeds) for info in infos]


def run(parts: dict[str, Any], prompts: list[ZImageConditioning], **settings: Any) -> torch.Tensor:
    options = {name: settings.pop(name) for name in ("scheduler", "shift", "controls") if name in settings}
    inputs = FlowInputs(**{"width": WIDTH, "height": HEIGHT, "steps": 4, "seed": 5, **settings})
    task = ZImageDenoiseTask(inputs, *prompts, **options)
    return pipeline.denoise(parts["transformer"], task, CPU, [].append)


def noise(seed: int = 5) -> torch.Tensor:
    return torch.randn((1, 16, HEIGHT // 8, WIDTH // 8), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prompt", ["", *PROMPTS, "abc " * 200])
def test_prompt_encoding_matches_diffusers(prompt: str, z_image_parts: dict[str, Any], reference: Any) -> None:
    tokenizer = z_image_parts["tokenizer"]
    info = pipeline.encode(tokenizer, z_image_parts["text_encoder"].model, prompt, CPU)
    with torch.inference_mode():
        (expected,) = reference._encode_prompt(prompt, device=CPU)
    torch.testing.assert_close(info.prompt_embeds[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cfg_scale", [1.0, 3.5])
def test_latents_match_diffusers(cfg_scale: float, z_image_parts: dict[str, Any], reference: Any, prompts: Any) -> None:
    expected = reference(
        prompt_embeds=[prompts[0].text[0]],
        negative_prompt_embeds=[prompts[1].text[0]],
        width=WIDTH,
        height=HEIGHT,
        num_inference_steps=4,
        sigmas=[1.0, 0.75, 0.5, 0.25],
        guidance_scale=cfg_scale - 1.0,  # diffusers adds the scale to 1
        latents=noise(),
        output_type="latent",
    ).images
    assert (expected - noise()).abs().mean() > 0.1, "the network changes the latents"
    result = run(z_image_parts, prompts, cfg_scale=cfg_scale)
    torch.testing.assert_close(result, expected, atol=2e-4, rtol=1e-4)


def test_a_shift_of_the_levels_replaces_the_one_by_size() -> None:
    def levels(**options: Any) -> list[float]:
        task = ZImageDenoiseTask(FlowInputs(512, 512, 4), ZImageConditioning(torch.empty(0)), **options)
        return pipeline.schedule_of(task, CPU).levels.tolist()

    assert levels(shift=1.0) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert levels(shift=3.0)[2] == pytest.approx(0.75)
    assert levels()[2] > levels(shift=1.0)[2]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0.3, 1.0, [0.75, 0.5, 0.25, 0.0]), (0.0, 0.6, [1.0, 0.75, 0.5]), (1.0, 1.0, [0.0]), (0.5, 0.25, [0.5])],
)
def test_a_part_of_a_run_has_whole_steps(start: float, end: float, expected: list[float]) -> None:
    inputs = FlowInputs(512, 512, 4, start=start, end=end)
    task = ZImageDenoiseTask(inputs, ZImageConditioning(torch.empty(0)), shift=1.0)
    assert pipeline.schedule_of(task, CPU).levels.tolist() == expected


@pytest.mark.parametrize("scheduler", ["heun", "lcm"])
def test_other_schedulers_repeat_and_differ(scheduler: str, z_image_parts: dict[str, Any], prompts: Any) -> None:
    first, second = (run(z_image_parts, prompts, scheduler=scheduler) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.allclose(first, run(z_image_parts, prompts), atol=1e-2)


def test_rows_of_a_batch_equal_single_runs(z_image_parts: dict[str, Any], prompts: Any) -> None:
    images = torch.cat([noise(1), noise(2)])
    both = run(z_image_parts, prompts, latents=images, start=0.5, cfg_scale=2.0)
    for row in range(2):
        alone = run(z_image_parts, prompts, latents=images[row : row + 1], start=0.5, cfg_scale=2.0)
        torch.testing.assert_close(both[row : row + 1], alone, atol=2e-5, rtol=1e-5)


def test_without_noise_latents_are_continued_as_they_are(z_image_parts: dict[str, Any], prompts: Any) -> None:
    whole = run(z_image_parts, prompts[:1])
    half = run(z_image_parts, prompts[:1], end=0.5)
    rest = run(z_image_parts, prompts[:1], latents=half, start=0.5, add_noise=False)
    torch.testing.assert_close(rest, whole, atol=1e-5, rtol=1e-5)


def test_a_region_sees_only_its_prompt_in_every_second_layer() -> None:
    left = torch.zeros(1, 4, 6, dtype=torch.bool)
    left[..., :3] = True
    regions = [PromptOfRegion(torch.zeros(1, 2, 8), left), PromptOfRegion(torch.ones(1, 3, 8))]
    conditioning = build_conditioning(regions, 4, 6)
    assert conditioning.text.shape == (1, 5, 8)
    mask = conditioning.attention_mask
    assert mask is not None
    attends = mask[0, 0]
    assert attends.shape == (64, 64), "24 image tokens and 5 of text, each padded to 32"
    assert attends[:24, :24].all()
    inside, outside = 0, 5
    assert attends[inside, 32:37].tolist() == [True, True, False, False, False]
    assert attends[outside, 32:37].tolist() == [False, False, True, True, True]
    assert attends[32, 32:37].tolist() == [True, True, False, False, False]
    assert attends[32, :24].tolist() == ([True] * 3 + [False] * 3) * 4
    assert attends[24:32].all()
    assert attends[:, 37:].all()


def test_regions_change_the_image_and_a_full_mask_of_one_prompt_does_not(
    z_image_parts: dict[str, Any], prompts: Any
) -> None:
    rows, columns = HEIGHT // 16, WIDTH // 16
    everything = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    text = prompts[0].text
    one = build_conditioning([PromptOfRegion(text, everything)], rows, columns)
    torch.testing.assert_close(run(z_image_parts, [one]), run(z_image_parts, prompts[:1]), atol=2e-5, rtol=1e-4)
    left = everything.clone()
    left[..., WIDTH // 2 :] = False
    right = ~left
    both = [
        build_conditioning([PromptOfRegion(text, a), PromptOfRegion(prompts[1].text, b)], rows, columns)
        for a, b in ((left, right), (right, left))
    ]
    assert not torch.allclose(run(z_image_parts, both[:1]), run(z_image_parts, both[1:]), atol=1e-3)
    layers = z_image_parts["transformer"].layers
    assert not any(layer._forward_pre_hooks for layer in layers)


def test_unsuitable_prompts_are_rejected(z_image_parts: dict[str, Any], prompts: Any) -> None:
    other = ZImageConditioning(torch.zeros(1, 16, 48))
    with pytest.raises(ValueError, match=r"negative prompt .* another Qwen3 model \(width 48, not 32\)"):
        run(z_image_parts, [prompts[0], other], cfg_scale=2.0)
    with pytest.raises(ValueError, match="300 tokens together, more than the 224"):
        run(z_image_parts, [ZImageConditioning(torch.zeros(1, 300, 32))])
