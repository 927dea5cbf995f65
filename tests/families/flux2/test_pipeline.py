"""FLUX.2 klein's prompt and denoise run with tiny networks, against diffusers' own pipeline."""

from typing import Any

import pytest
import torch
from PIL import Image

from invokeclone.components.autoencoders.kl_flux2 import statistics_of
from invokeclone.components.flux.regions import PromptRegion
from invokeclone.components.flux.tokens import pack
from invokeclone.engine.flow_inputs import FlowInputs
from invokeclone.families.flux2 import pipeline
from invokeclone.families.flux2.conditioning import Flux2Prompt
from invokeclone.families.flux2.reference_images import encode_references, limit_size
from tests.tiny_transformers import make_flux2_transformer, make_vae16

CPU = torch.device("cpu")
WIDTH, HEIGHT = 96, 64
MU = 2.02


@pytest.fixture
def reference(flux2_parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make diffusers' pipeline, with the shift of InvokeAI, which does not depend on the image's size."""
    from diffusers.pipelines.flux2 import pipeline_flux2_klein

    monkeypatch.setattr(pipeline_flux2_klein, "compute_empirical_mu", lambda **_: MU)
    made = pipeline_flux2_klein.Flux2KleinPipeline(**flux2_parts, is_distilled=False)
    made.set_progress_bar_config(disable=True)
    return made


def text(seed: int = 0, tokens: int = 6) -> torch.Tensor:
    return torch.randn(1, tokens, 48, generator=torch.Generator().manual_seed(seed))


def noise(seed: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, 32, HEIGHT // 8, WIDTH // 8), generator=generator, dtype=torch.float16).float()


def task_of(parts: dict[str, Any], **changes: Any) -> pipeline.Flux2Task:
    settings = {"width": WIDTH, "height": HEIGHT, "steps": 4, "seed": 5}
    fields = {"positive": Flux2Prompt(text()), "negative": None, "statistics": statistics_of(parts["vae"])}
    task_fields = set(pipeline.Flux2Task.__dataclass_fields__) - {"inputs"}
    settings |= {name: value for name, value in changes.items() if name not in task_fields}
    fields |= {name: value for name, value in changes.items() if name in task_fields}
    return pipeline.Flux2Task(FlowInputs(**settings), **fields)


def run(parts: dict[str, Any], **changes: Any) -> torch.Tensor:
    return pipeline.denoise(parts["transformer"], task_of(parts, **changes), CPU, [].append)


def expected(reference: Any, scale: float = 1.0, image: Image.Image | None = None) -> torch.Tensor:
    squares = torch.nn.functional.pixel_unshuffle(noise(), 2)
    result: torch.Tensor = reference(
        prompt_embeds=text(), negative_prompt_embeds=text(1), width=WIDTH, height=HEIGHT, num_inference_steps=4,
        guidance_scale=scale, latents=squares, output_type="latent", image=image,
    ).images  # fmt: skip
    return result


def close(result: torch.Tensor, reference: torch.Tensor) -> None:
    torch.testing.assert_close(result, reference, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("prompt", ["", "a red fox", "abc " * 300])
def test_prompt_encoding_matches_diffusers(prompt: str, flux2_parts: dict[str, Any], reference: Any) -> None:
    tokenizer, encoder = flux2_parts["tokenizer"], flux2_parts["text_encoder"]
    with torch.inference_mode():
        embeds = reference._get_qwen3_prompt_embeds(encoder, tokenizer, prompt)
    info = pipeline.encode_klein(tokenizer, encoder.model, prompt, 512, CPU)
    assert info.embeds.shape == (1, 512, 48)
    torch.testing.assert_close(info.embeds, embeds)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_latents_match_diffusers(scale: float, flux2_parts: dict[str, Any], reference: Any) -> None:
    result = run(flux2_parts, negative=Flux2Prompt(text(1)), cfg_scale=scale)
    assert result.dtype == torch.float32
    assert (result - statistics_of(flux2_parts["vae"]).denormalize(noise())).abs().mean() > 0.1
    close(result, expected(reference, scale))


def test_a_reference_image_matches_diffusers(flux2_parts: dict[str, Any], reference: Any) -> None:
    image = Image.linear_gradient("L").resize((80, 64)).convert("RGB")
    references = encode_references(flux2_parts["vae"], [image], CPU)
    result = run(flux2_parts, references=references)
    assert not torch.allclose(result, run(flux2_parts), atol=1e-2)
    close(result, expected(reference, image=image))


def test_reference_images_are_placed_side_by_side(flux2_parts: dict[str, Any]) -> None:
    images = [Image.new("RGB", size) for size in ((64, 48), (32, 88), (16, 16))]
    references = encode_references(flux2_parts["vae"], images, CPU)
    assert references is not None
    corners = [references.positions[n].tolist() for n in (0, 12, 24)]
    assert corners == [[10, 0, 0, 0], [20, 0, 4, 0], [30, 6, 0, 0]]
    assert references.tokens.shape == (1, 12 + 12 + 1, 128), "odd sides are padded"
    assert encode_references(flux2_parts["vae"], [], CPU) is None


def test_large_reference_images_are_reduced() -> None:
    assert limit_size(Image.new("RGB", (2000, 1000)), 1000 * 500).size == (1000, 500)
    assert limit_size(Image.new("RGB", (1000, 500)), 1000 * 500).size == (1000, 500)


def test_heun_matches_diffusers(flux2_parts: dict[str, Any]) -> None:
    from diffusers import FlowMatchHeunDiscreteScheduler

    scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(4)
    schedule = pipeline.make_schedule(task_of(flux2_parts).inputs, "heun", CPU)
    torch.testing.assert_close(schedule.levels, scheduler.sigmas)
    assert not torch.allclose(run(flux2_parts, scheduler="heun"), run(flux2_parts), atol=1e-2)


def test_lcm_depends_on_the_seed_only(flux2_parts: dict[str, Any]) -> None:
    first, again, other = (run(flux2_parts, scheduler="lcm", noise=noise(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-2)


def test_a_later_start_has_all_steps(flux2_parts: dict[str, Any]) -> None:
    inputs = task_of(flux2_parts, start=0.4, steps=8).inputs
    levels = pipeline.make_schedule(inputs, "euler", CPU).levels
    assert len(levels) == 9
    assert (levels[0], levels[-1]) == (torch.tensor(0.6), 0.0)
    factor = torch.tensor(MU).exp()
    unshifted = levels[:-1] / (factor - (factor - 1) * levels[:-1])
    torch.testing.assert_close(unshifted.diff(), torch.full((7,), -float(unshifted[0]) / 8))
    ended = pipeline.make_schedule(task_of(flux2_parts, end=0.2, steps=8).inputs, "euler", CPU).levels
    assert float(ended[-1]) == pytest.approx(0.8)
    assert len(ended) == 7, "without a later start, the steps after the end are left out"


def test_lengths_of_steps_are_rounded_in_runs_from_noise_alone() -> None:
    """Runs from an image take InvokeAI's own steps, others those of diffusers' scheduler."""
    prediction = torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    latents, after = torch.zeros_like(prediction), {}
    for given in (None, latents):
        schedule = pipeline.make_schedule(FlowInputs(64, 64, 4, latents=given), "euler", CPU)
        after[given is None] = schedule.step(prediction, latents, 0).latents
    length = float(schedule.levels[1]) - float(schedule.levels[0])
    assert torch.equal(after[True], prediction * float(torch.tensor(length).bfloat16()))
    assert torch.equal(after[False], prediction * length)
    assert not torch.equal(after[True], after[False])


def test_a_run_continues_another(flux2_parts: dict[str, Any]) -> None:
    """Latents that a run leaves noisy are the start of the next one, which adds no noise."""
    half = run(flux2_parts, end=0.5, steps=8)
    torch.testing.assert_close(run(flux2_parts, latents=half, start=1.0, add_noise=False), half)
    rest = run(flux2_parts, latents=half, start=0.5, add_noise=False, steps=8)
    assert not torch.allclose(rest, run(flux2_parts, latents=half, start=0.5, steps=8), atol=1e-2)
    whole = run(flux2_parts, steps=8)
    assert (rest - whole).abs().mean() < 0.3 * (half - whole).abs().mean()


def test_masks_keep_the_original(flux2_parts: dict[str, Any]) -> None:
    original, keep = 0.5 * noise(1), torch.zeros(1, 1, HEIGHT // 8, WIDTH // 8)
    keep[..., WIDTH // 16 :] = 1.0
    result = run(flux2_parts, latents=original, keep_mask=keep, start=0.3)
    torch.testing.assert_close(result[..., WIDTH // 16 :], original[..., WIDTH // 16 :], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(result[..., : WIDTH // 16], original[..., : WIDTH // 16], atol=1e-2)
    unchanged = run(flux2_parts, latents=original, start=1.0)
    torch.testing.assert_close(unchanged, original, atol=1e-5, rtol=1e-5)


def test_rows_of_a_batch_equal_single_runs(flux2_parts: dict[str, Any]) -> None:
    images = torch.cat([noise(1), noise(2)])
    both = run(flux2_parts, latents=images, start=0.4)
    for row in range(2):
        close(both[row : row + 1], run(flux2_parts, latents=images[row : row + 1], start=0.4))


def test_regions_have_their_own_prompts(flux2_parts: dict[str, Any]) -> None:
    left = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    left[..., : WIDTH // 2] = True

    def joined(second: int, *, masked: bool = True) -> Flux2Prompt:
        regions = [PromptRegion(text(0), left), PromptRegion(text(second), ~left)]
        return pipeline.join_prompts(regions, WIDTH, HEIGHT, masked=masked)

    first, other = run(flux2_parts, positive=joined(1)), run(flux2_parts, positive=joined(2))
    half = WIDTH // 16
    torch.testing.assert_close(first[..., :half], other[..., :half], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(first[..., half:], other[..., half:], atol=1e-2)
    assert joined(1, masked=False).attention_mask is None


def test_guidance_is_an_input_of_dev_models(flux2_parts: dict[str, Any]) -> None:
    dev = flux2_parts | {"transformer": make_flux2_transformer(guidance_embeds=True)}
    assert not torch.allclose(run(dev, guidance=1.0), run(dev, guidance=8.0), atol=1e-3)
    assert torch.equal(run(flux2_parts, guidance=1.0), run(flux2_parts, guidance=8.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "num_steps must be at least 1"),
        ({"cfg_scale": 3.0}, "needs negative_text_conditioning"),
        ({"negative": Flux2Prompt(torch.zeros(1, 6, 32))}, r"negative prompt .*width 32, not 48"),
        ({"latents": torch.zeros(1, 16, 8, 12)}, "latents must be 32 x 8 x 12"),
    ],
)
def test_unsuitable_inputs_are_named(changes: dict[str, Any], message: str, flux2_parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        run(flux2_parts, **changes)


def test_other_autoencoders_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"not one of FLUX\.2"):
        statistics_of(make_vae16())


def test_statistics_are_those_of_tokens(flux2_parts: dict[str, Any]) -> None:
    """Normalization has the order of channels of the transformer's tokens."""
    vae = flux2_parts["vae"]
    tokens = pack(statistics_of(vae).normalize(noise()))
    deviation = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
    torch.testing.assert_close(tokens, (pack(noise()) - vae.bn.running_mean) / deviation)
