"""Denoising with the tiny UNet against diffusers' own pipeline, and what it can do beside that."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from PIL import Image

from invokeclone.components.autoencoders.vae import image_to_tensor
from invokeclone.engine import preview
from invokeclone.engine.schedules import discrete
from invokeclone.families.stable_diffusion import pipeline
from invokeclone.families.stable_diffusion.conditioning import BasicConditioningInfo, TextConditioning
from invokeclone.families.stable_diffusion.fields import FreeUConfig
from invokeclone.graph.context import CanceledException
from tests.families.stable_diffusion.conftest import CPU, Denoise, Encode, MakeTask
from tests.tiny_models import SCHEDULER, noise_of

SDXL_SCHEDULER = {**SCHEDULER, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}


@pytest.mark.parametrize("config", [SCHEDULER, SDXL_SCHEDULER], ids=["sd1", "leading"])
@pytest.mark.parametrize("name", ["euler", "ddim", "dpmpp_2m", "euler_k", "pndm", "heun", "unipc", "deis"])
def test_latents_match_diffusers(name: str, config: dict[str, Any], sd1_parts: dict[str, Any], denoise: Denoise):
    """Diffusers' pipeline multiplies what it is given by init_noise_sigma; here the sampler adds noise to zeros."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    sampler = discrete.create(name, config)
    sampler.set_timesteps(4)
    noise = noise_of(1)
    begun = sampler.add_noise(torch.zeros_like(noise), noise, sampler.timesteps[:1]) / sampler.init_noise_sigma
    reference = StableDiffusionPipeline(
        **sd1_parts,
        scheduler=discrete.create(name, config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    reference.set_progress_bar_config(disable=True)

    def reference_latents(**settings: float) -> torch.Tensor:
        return reference(
            "a red circle",
            negative_prompt="",
            latents=begun,
            num_inference_steps=4,
            output_type="latent",
            **settings,
        ).images

    latents = denoise(scheduler=name, scheduler_config=config)
    assert torch.allclose(latents, reference_latents(guidance_scale=7.5), atol=1e-4)
    latents = denoise(scheduler=name, scheduler_config=config, cfg_scale=4.0, cfg_rescale=0.7)
    assert torch.allclose(latents, reference_latents(guidance_scale=4.0, guidance_rescale=0.7), atol=1e-4)


def test_prompts_of_different_length(denoise: Denoise, encode: Encode):
    longer = encode('("a cat", "a dog").and()')
    together = denoise(positive=longer)
    assert torch.allclose(together, denoise(positive=longer, sequential=True), atol=1e-4)
    assert not torch.allclose(together, denoise(), atol=1e-3)


def test_padding_of_the_shorter_prompt_is_masked(sd1_parts: dict[str, Any], encode: Encode):
    """Both sides in one call equal each side alone, without any padding."""
    from invokeclone.families.stable_diffusion.denoiser import UNetDenoiser

    longer, shorter = encode('("a cat", "a dog").and()'), encode("a mouse")
    latents, timestep = noise_of(1), torch.tensor(500)
    denoiser = UNetDenoiser(sd1_parts["unet"])
    with torch.inference_mode():
        batched = denoiser(torch.cat([latents, latents]), timestep, shorter.concat(longer))
        alone = torch.cat([denoiser(latents, timestep, side) for side in (shorter, longer)])
    assert torch.allclose(batched, alone, atol=1e-5)


def test_one_call_or_two_give_the_same(denoise: Denoise):
    assert torch.allclose(denoise(), denoise(sequential=True), atol=1e-4)


def test_scale_one_uses_only_the_positive_prompt(denoise: Denoise, encode: Encode):
    alone = denoise(cfg_scale=1.0)
    assert torch.equal(alone, denoise(cfg_scale=1.0, negative=encode("something else")))
    assert torch.allclose(alone, denoise(cfg_scale=1.0000001), atol=1e-4)


def test_per_step_scales(denoise: Denoise):
    assert torch.equal(denoise(cfg_scale=[5.0] * 4), denoise(cfg_scale=5.0))
    assert not torch.equal(denoise(cfg_scale=[5.0, 5.0, 5.0, 2.0]), denoise(cfg_scale=5.0))
    assert torch.equal(denoise(cfg_scale=[5.0]), denoise(cfg_scale=5.0))


def test_noise_is_added_by_the_sampler(denoise: Denoise):
    """Also at the first timestep, where diffusers' pipelines begin with noise of another amount."""
    states: list[Any] = []
    denoise(states, scheduler="ddim")
    sampler = discrete.create("ddim", SCHEDULER)
    expected = sampler.add_noise(torch.zeros(1, 4, 8, 8), noise_of(1), torch.tensor([751]))
    assert torch.equal(states[0].latents, expected)
    denoise(states := [], scheduler="ddim", latents=noise_of(5))
    expected = sampler.add_noise(noise_of(5), noise_of(1), torch.tensor([751]))
    assert torch.allclose(states[0].latents, expected)


def test_images_are_noised_to_the_starting_timestep(denoise: Denoise):
    original = noise_of(5) * 0.5
    states: list[Any] = []
    little = denoise(states, latents=original, start=0.8, steps=10)
    much = denoise(latents=original, start=0.2, steps=10)
    assert (little - original).abs().mean() < (much - original).abs().mean()
    assert len(states) == 3
    assert states[-1].total_steps == 2
    assert torch.equal(little, denoise(latents=original, start=0.8, steps=10))


def test_an_empty_schedule_adds_noise_without_model_calls(denoise: Denoise):
    original, states = noise_of(5), []
    noisy = denoise(states, scheduler="ddim", latents=original, start=0.5, end=0.5, steps=10)
    sampler = discrete.create("ddim", SCHEDULER)
    assert torch.allclose(noisy, sampler.add_noise(original, noise_of(1), torch.tensor([401])), atol=1e-6)
    unchanged = denoise(states, latents=original, start=1.0)
    assert torch.equal(unchanged, original)
    assert not states


def test_two_half_runs_equal_a_full_run(denoise: Denoise):
    whole = denoise(scheduler="ddim", steps=6)
    half = denoise(scheduler="ddim", steps=6, end=0.5)
    rest = denoise(scheduler="ddim", steps=6, start=0.5, latents=half, noise=None)
    assert torch.allclose(rest, whole, atol=1e-5)


def test_prediction_type_comes_from_the_record(denoise: Denoise):
    velocity = denoise(prediction_type="v_prediction")
    assert not torch.allclose(velocity, denoise(prediction_type="epsilon"), atol=1e-2)
    assert torch.equal(velocity, denoise(scheduler_config={**SCHEDULER, "prediction_type": "v_prediction"}))


@pytest.mark.filterwarnings("ignore:Should have ta>=t0:UserWarning")  # torchsde, about rounding
@pytest.mark.parametrize("name", ["euler_a", "dpmpp_sde", "dpmpp_2m_sde", "lcm", "ddpm", "er_sde"])
def test_step_noise_depends_on_the_seed(name: str, denoise: Denoise):
    first = denoise(scheduler=name, seeds=(1,))
    assert torch.equal(first, denoise(scheduler=name, seeds=(1,)))
    assert not torch.allclose(first, denoise(scheduler=name, seeds=(2,)), atol=1e-3)


def test_sizes_must_agree(denoise: Denoise):
    with pytest.raises(ValueError, match="differ in size"):
        denoise(latents=noise_of(2, 1, 4, 16, 16))
    with pytest.raises(ValueError, match="latents or noise"):
        denoise(noise=None)
    assert denoise(noise=noise_of(0, 1, 4, 5, 9)).shape == (1, 4, 5, 9)


def test_computation_uses_the_unets_dtype(sd1_parts: dict[str, Any], make_task: MakeTask):
    unet = deepcopy(sd1_parts["unet"]).to(torch.bfloat16)
    formats: set[torch.dtype] = set()
    unet.conv_in.register_forward_pre_hook(lambda _, inputs: formats.add(inputs[0].dtype))
    states: list[Any] = []
    keep = torch.full((1, 1, 8, 8), 0.3)
    task = make_task(scheduler="ddim", latents=noise_of(5), keep_mask=keep)
    result = pipeline.denoise(unet, task, CPU, states.append)
    assert result.dtype == torch.bfloat16
    assert formats == {state.latents.dtype for state in states} == {torch.bfloat16}
    sampler = discrete.create("ddim", SCHEDULER)
    begun = sampler.add_noise(noise_of(5).bfloat16(), noise_of(1).bfloat16(), torch.tensor([751]))
    assert torch.equal(states[0].latents, begun), "rounded before noise is added"


def test_canceling_stops_at_the_next_step(sd1_parts: dict[str, Any], make_task: MakeTask):
    steps: list[int] = []

    def on_step(state: Any) -> None:
        steps.append(state.step)
        if state.step == 2:
            raise CanceledException

    with pytest.raises(CanceledException):
        pipeline.denoise(sd1_parts["unet"], make_task(steps=50), CPU, on_step)
    assert steps == [0, 1, 2]


def test_seamless_axes_and_freeu_apply_to_one_run_only(denoise: Denoise):
    plain = denoise()
    wrapped = denoise(seamless_axes=["x"])
    freed = denoise(free_u=FreeUConfig(s1=0.9, s2=0.2, b1=1.2, b2=1.4))
    assert not torch.equal(plain, wrapped)
    assert freed.isfinite().all()
    assert not torch.equal(plain, freed)
    assert torch.equal(plain, denoise())


def test_seamless_images_wrap_around(sd1_parts: dict[str, Any]):
    """Rolling the latents of an image that wraps around rolls the image."""
    vae, latents = sd1_parts["vae"], noise_of(3)

    def decode(rolled: torch.Tensor, **settings: Any) -> torch.Tensor:
        return image_to_tensor(pipeline.decode(vae, rolled, CPU, **settings))

    wrapped = decode(latents, seamless_axes=["x"])
    rolled = decode(latents.roll(4, dims=-1), seamless_axes=["x"])
    assert (wrapped.roll(32, dims=-1) - rolled).abs().max() < 0.02
    plain = decode(latents.roll(4, dims=-1))
    assert (wrapped.roll(32, dims=-1) - plain).abs().max() > 0.02


def test_images_and_latents(sd1_parts: dict[str, Any]):
    vae = sd1_parts["vae"]
    pixels = image_to_tensor(Image.linear_gradient("L").resize((70, 50)))
    latents = pipeline.encode_image(vae, pixels, CPU)
    assert latents.shape == (1, 4, 6, 8)
    assert latents.dtype == torch.float32
    assert torch.equal(latents, pipeline.encode_image(vae, pixels, CPU))
    image = pipeline.decode(vae, latents, CPU)
    assert (image.size, image.mode) == ((64, 48), "RGB")


def test_previews_use_the_colors_of_the_models_vae(load_part: Callable[[str], Any], make_task: MakeTask):
    unet = load_part("unet")
    assert unet.latent_colors is not None, "the tiny autoencoder is not the published one"
    used: list[Any] = []
    pipeline.denoise(unet, make_task(), CPU, lambda _: used.append(preview._current.get()))
    assert used == [unet.latent_colors] * 5
    assert preview._current.get() is None


class TestConditioning:
    def test_prompts_are_concatenated(self):
        first, second = noise_of(1, 1, 3, 8), noise_of(2, 1, 5, 8)
        joined = TextConditioning.of_prompts([(BasicConditioningInfo(e), None) for e in (first, second)])
        assert torch.equal(joined.embeds, torch.cat([first, second], dim=1))
        assert (joined.lengths, joined.is_regional, joined.token_mask()) == ((8,), False, None)

    def test_rows_of_different_length_are_padded_with_zeros(self):
        first, second = (
            TextConditioning.of_prompts([(BasicConditioningInfo(noise_of(1, 1, tokens, 8)), None)]) for tokens in (3, 5)
        )
        joined = first.concat(second)
        assert joined.embeds.shape == (2, 5, 8)
        assert not joined.embeds[0, 3:].any()
        assert joined.token_mask().int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]

    def test_one_row_is_expanded_to_the_batch(self):
        single = TextConditioning.of_prompts([(BasicConditioningInfo(noise_of(1, 1, 3, 8)), None)])
        three = single.expand(3)
        assert (three.embeds.shape, three.lengths) == ((3, 3, 8), (3, 3, 3))
        assert three.expand(3) is three
        with pytest.raises(ValueError, match="3 prompts do not match 2 latents"):
            three.expand(2)
