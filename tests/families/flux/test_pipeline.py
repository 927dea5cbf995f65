"""FLUX.1's denoising against diffusers' pipelines, with the same weights, noise, embeddings and noise levels."""

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FluxFillPipeline,
    FluxKontextPipeline,
    FluxPipeline,
)
from torch.nn import functional

from invokeclone.components.flux.tokens import pack, unpack
from invokeclone.engine.flow_inputs import FlowInputs
from invokeclone.engine.schedules import flow, flow_solvers
from invokeclone.families.flux import pipeline
from invokeclone.families.flux.conditioning import FluxConditioning
from invokeclone.families.flux.pipeline import FluxDenoiseTask
from invokeclone.families.flux.reference_images import fill_tokens, kontext_references
from invokeclone.families.flux.tokens import positions, rotary_table
from tests.tiny_flux import make_transformer

CPU = torch.device("cpu")
WIDTH, HEIGHT = 96, 64
Text = Callable[[int], tuple[torch.Tensor, torch.Tensor]]


def noise_of(seed: int) -> torch.Tensor:
    return torch.randn(1, 16, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(seed))


def image_of(seed: int, width: int = WIDTH, height: int = HEIGHT) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def side(text: tuple[torch.Tensor, torch.Tensor], *, positive: bool = True) -> FluxConditioning:
    return FluxConditioning(*text, positive=positive)


def task_of(flux_text: Text, inputs: dict[str, Any] | None = None, **changes: Any) -> FluxDenoiseTask:
    settings = FlowInputs(**{"width": WIDTH, "height": HEIGHT, "steps": 4, "noise": noise_of(1), **(inputs or {})})
    return FluxDenoiseTask(
        **{"inputs": settings, "positive": side(flux_text(1)), "negative": None, "guidance": 3.5, **changes}
    )


def run(transformer: Any, task: FluxDenoiseTask) -> torch.Tensor:
    return pipeline.denoise(transformer, task, CPU, lambda _: None)


def levels_of(steps: int = 4) -> list[float]:
    return flow.shift_levels(flow.even_levels(steps), flow.shift_by_tokens(WIDTH * HEIGHT // 256))


def reference(
    cls: Any, transformer: Any, vae: Any, text: tuple[torch.Tensor, torch.Tensor], **arguments: Any
) -> torch.Tensor:
    """Return the latents of a diffusers pipeline whose scheduler takes the levels as they are."""
    made = cls(FlowMatchEulerDiscreteScheduler(shift=1.0), vae, None, None, None, None, transformer)
    made.set_progress_bar_config(disable=True)
    packed = made(
        prompt_embeds=text[0],
        pooled_prompt_embeds=text[1],
        latents=pack(noise_of(1)),
        sigmas=levels_of()[:-1],
        guidance_scale=3.5,
        width=WIDTH,
        height=HEIGHT,
        output_type="latent",
        return_dict=False,
        **arguments,
    )[0]
    return unpack(packed, HEIGHT // 8, WIDTH // 8)


def assert_close(latents: torch.Tensor, expected: torch.Tensor) -> None:
    assert latents.shape == expected.shape
    assert float((latents - expected).detach().abs().max()) < 2e-4


def test_text_to_image(flux_transformer: Any, flux_vae: Any, flux_text: Text) -> None:
    expected = reference(FluxPipeline, flux_transformer, flux_vae, flux_text(1), num_inference_steps=4)
    assert_close(run(flux_transformer, task_of(flux_text)), expected)


def test_schnell_has_no_guidance_and_no_shift(flux_vae: Any, flux_text: Text) -> None:
    transformer = make_transformer(guidance_embeds=False)
    latents = run(transformer, task_of(flux_text, shifted=False))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    made = FluxPipeline(scheduler, flux_vae, None, None, None, None, transformer)
    made.set_progress_bar_config(disable=True)
    text = flux_text(1)
    expected = made(
        prompt_embeds=text[0], pooled_prompt_embeds=text[1], latents=pack(noise_of(1)), sigmas=flow.even_levels(4)[:-1],
        num_inference_steps=4, width=WIDTH, height=HEIGHT, output_type="latent", return_dict=False,
    )[0]  # fmt: skip
    assert_close(latents, unpack(expected, HEIGHT // 8, WIDTH // 8))


def test_negative_prompt(flux_transformer: Any, flux_vae: Any, flux_text: Text) -> None:
    negative = flux_text(2)
    expected = reference(
        FluxPipeline, flux_transformer, flux_vae, flux_text(1), num_inference_steps=4, true_cfg_scale=3.0,
        negative_prompt_embeds=negative[0], negative_pooled_prompt_embeds=negative[1],
    )  # fmt: skip
    task = task_of(flux_text, {"cfg_scale": 3.0}, negative=side(negative, positive=False))
    assert_close(run(flux_transformer, task), expected)


def test_guidance_by_the_negative_prompt_may_be_for_some_steps_only(flux_transformer: Any, flux_text: Text) -> None:
    negative = side(flux_text(2), positive=False)
    guided = run(flux_transformer, task_of(flux_text, {"cfg_scale": [1.0, 3.0, 3.0, 1.0]}, negative=negative))
    window = task_of(flux_text, {"cfg_scale": 3.0}, negative=negative, cfg_start=1, cfg_end=-2)
    assert torch.equal(run(flux_transformer, window), guided)
    assert not torch.equal(run(flux_transformer, task_of(flux_text, {"cfg_scale": 3.0}, negative=negative)), guided)


def test_a_scale_without_a_negative_prompt_is_rejected(flux_transformer: Any, flux_text: Text) -> None:
    with pytest.raises(ValueError, match="needs negative_text_conditioning"):
        run(flux_transformer, task_of(flux_text, {"cfg_scale": 2.0}))


def test_fill(flux_vae: Any, flux_text: Text) -> None:
    transformer = make_transformer(in_channels=384, out_channels=64)
    image = image_of(3)
    change = torch.zeros(1, 1, HEIGHT, WIDTH)
    change[..., 16:40, 24:72] = 1.0
    expected = reference(
        FluxFillPipeline, transformer, flux_vae, flux_text(1), num_inference_steps=4,
        image=(image + 1) / 2, mask_image=change, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    task = task_of(flux_text, added=fill_tokens(flux_vae, image, change, CPU))
    assert_close(run(transformer, task), expected)


def test_tokens_of_fill_match_diffusers(flux_vae: Any) -> None:
    """The library draws from the autoencoder's distribution too, with a generator that is given."""
    made = FluxFillPipeline(FlowMatchEulerDiscreteScheduler(), flux_vae, None, None, None, None, make_transformer())
    image, change = image_of(3), torch.zeros(1, 1, HEIGHT, WIDTH)
    change[..., 16:40, 24:72] = 1.0
    mask, latents = made.prepare_mask_latents(
        change, image * (1 - change), 1, 16, 1, HEIGHT, WIDTH, torch.float32, CPU, torch.Generator().manual_seed(0)
    )
    expected = torch.cat([latents, mask], dim=-1)
    assert_close(fill_tokens(flux_vae, image, change.bool(), CPU), expected)


def test_models_for_inpainting_need_an_image_and_others_take_none(flux_transformer: Any, flux_text: Text) -> None:
    with pytest.raises(ValueError, match="connect fill_conditioning"):
        run(make_transformer(in_channels=384, out_channels=64), task_of(flux_text))
    with pytest.raises(ValueError, match="fill_conditioning is for FLUX"):
        run(flux_transformer, task_of(flux_text, added=torch.zeros(1, WIDTH * HEIGHT // 256, 320)))


def test_kontext(flux_transformer: Any, flux_vae: Any, flux_text: Text) -> None:
    image = image_of(4)
    expected = reference(
        FluxKontextPipeline, flux_transformer, flux_vae, flux_text(1), num_inference_steps=4, image=(image + 1) / 2,
        max_area=WIDTH * HEIGHT, _auto_resize=False,
    )  # fmt: skip
    task = task_of(flux_text, references=kontext_references(flux_vae, [image], CPU))
    assert_close(run(flux_transformer, task), expected)


def test_positions_of_several_references(flux_vae: Any) -> None:
    images = [image_of(1, 64, 32), image_of(2, 48, 64), image_of(3, 72, 40)]
    first, second, third = kontext_references(flux_vae, images, CPU)
    assert first.tokens.shape[1] == 4 * 2
    assert first.positions[0].tolist() == [1, 0, 0]
    assert first.positions[-1].tolist() == [1, 1, 3]
    assert second.positions[0].tolist() == [1, 2, 0]  # below: 4 + 8 rows of latents are not more than 8 + 6 columns
    assert third.positions[0].tolist() == [1, 6, 0]
    _, tall = kontext_references(flux_vae, [image_of(1, 64, 32), image_of(2, 16, 64)], CPU)
    assert tall.positions[0].tolist() == [1, 0, 4]  # to the right: 4 + 8 rows are more than 8 + 2 columns
    assert third.tokens.shape[1] == 3 * 5  # sides are padded to whole tokens


def test_heun_matches_diffusers(flux_transformer: Any, flux_text: Text) -> None:
    scheduler = FlowMatchHeunDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(4)
    schedule = flow_solvers.heun_flow_schedule(flow_solvers.linear_levels(4), CPU)
    assert torch.allclose(schedule.timesteps, scheduler.timesteps.float(), atol=1e-3)
    expected = latents = noise_of(1)
    for index, timestep in enumerate(scheduler.timesteps):
        expected = scheduler.step(torch.sin(3 * expected) + timestep / 1000, timestep, expected).prev_sample
        latents, _ = schedule.step(torch.sin(3 * latents) + schedule.timesteps[index] / 1000, latents, index)
    assert_close(latents, expected)
    calls: list[int] = []
    pipeline.denoise(
        flux_transformer, task_of(flux_text, scheduler="heun"), CPU, lambda state: calls.append(state.step)
    )
    assert len(calls) == 1 + 7  # two calls for each step but the last


def test_lcm_is_reproducible(flux_transformer: Any, flux_text: Text) -> None:
    """The reference draws its noise from torch's global generator, so that no two runs are equal."""
    first = run(flux_transformer, task_of(flux_text, {"seed": 5}, scheduler="lcm"))
    torch.manual_seed(99)
    assert torch.equal(run(flux_transformer, task_of(flux_text, {"seed": 5}, scheduler="lcm")), first)
    assert not torch.equal(run(flux_transformer, task_of(flux_text, {"seed": 6}, scheduler="lcm")), first)


@pytest.mark.parametrize("scheduler", ["euler", "heun", "lcm"])
def test_image_to_image_keeps_more_of_the_image_the_later_it_starts(
    flux_transformer: Any, flux_text: Text, scheduler: str
) -> None:
    original = noise_of(7) * 0.5
    distances = []
    for start in (0.3, 0.6, 0.95):
        task = task_of(flux_text, {"latents": original, "start": start}, scheduler=scheduler)
        distances.append(float((run(flux_transformer, task) - original).norm()))
    assert distances[0] > distances[1] > distances[2]


def test_a_mask_keeps_the_image(flux_transformer: Any, flux_text: Text) -> None:
    original = noise_of(7) * 0.5
    keep = torch.ones(1, 1, HEIGHT, WIDTH)
    keep[..., : WIDTH // 2] = 0.0
    latents = run(flux_transformer, task_of(flux_text, {"latents": original, "start": 0.2, "keep_mask": keep}))
    assert torch.allclose(latents[..., WIDTH // 16 :], original[..., WIDTH // 16 :], atol=1e-6)
    assert not torch.allclose(latents[..., : WIDTH // 16], original[..., : WIDTH // 16], atol=0.1)


def test_latents_without_added_noise_are_the_start(flux_transformer: Any, flux_text: Text) -> None:
    plain = run(flux_transformer, task_of(flux_text))
    given = {"latents": noise_of(1), "add_noise": False}
    task = task_of(flux_text, given)
    task.inputs.noise = noise_of(2)
    assert torch.equal(run(flux_transformer, task), plain)


def test_damaged_weights_are_named(flux_text: Text) -> None:
    transformer = make_transformer()
    transformer.proj_out.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        run(transformer, task_of(flux_text))


def test_fill_with_a_float32_autoencoder_computes_in_float32_from_the_first_layer_of_the_image_on(
    flux_text: Text,
) -> None:
    """Concatenated channels in float32 spread: image tokens at once, text with the first attention, time after a step."""
    half = make_transformer(in_channels=384, out_channels=64).bfloat16()
    added = torch.rand(1, WIDTH * HEIGHT // 256, 320, generator=torch.Generator().manual_seed(3))
    latents = run(half, task_of(flux_text, {"steps": 2}, added=added))
    assert latents.dtype == torch.float32
    assert "forward" not in vars(half.x_embedder)  # the model is as before

    expected, levels = pack(noise_of(1).bfloat16()), levels_of(2)
    text, pooled = (part.bfloat16() for part in flux_text(1))
    with torch.inference_mode():
        for level, following in itertools.pairwise(levels):
            time = torch.tensor([level]).to(expected.dtype)
            velocity = mixed_formats(half, torch.cat([expected, added], dim=2), text, pooled, time)
            expected = expected.float() + (following - level) * velocity
    assert torch.allclose(latents, unpack(expected, HEIGHT // 8, WIDTH // 8), atol=1e-5)


def mixed_formats(
    half: Any, tokens: torch.Tensor, text: torch.Tensor, pooled: torch.Tensor, time: torch.Tensor
) -> torch.Tensor:
    """Return the velocity, each layer being taken from the transformer in bfloat16 or in float32 by its input."""
    full = copy.deepcopy(half).float()
    modulating = half if time.dtype == torch.bfloat16 else full
    for kind in ("transformer_blocks", "single_transformer_blocks"):
        for block, other in zip(getattr(full, kind), getattr(modulating, kind), strict=True):
            for name in ("norm1", "norm1_context", "norm"):
                if hasattr(block, name):
                    getattr(block, name).linear = getattr(other, name).linear
    first, other = full.transformer_blocks[0].attn, half.transformer_blocks[0].attn
    if time.dtype == torch.bfloat16:
        for name in ("add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"):
            setattr(first, name, getattr(other, name))
    embed, guidance = half.time_text_embed, torch.tensor([3.5]).bfloat16()
    embedding = (full if time.dtype == torch.float32 else half).time_text_embed.timestep_embedder(
        embed.time_proj(time * 1000).to(time.dtype)
    )
    embedding = embedding + embed.guidance_embedder(embed.time_proj(guidance * 1000).bfloat16())
    embedding = embedding + embed.text_embedder(pooled)
    hidden, context = full.x_embedder(tokens), half.context_embedder(text)
    grid = torch.cat([torch.zeros(text.shape[1], 3), positions(HEIGHT // 16, WIDTH // 16)])
    rotary = rotary_table(grid, half.config.axes_dims_rope, torch.bfloat16)
    for block in [*full.transformer_blocks, *full.single_transformer_blocks]:
        context, hidden = block(hidden, context, embedding, rotary)
    scale, shift = modulating.norm_out.linear(functional.silu(embedding)).chunk(2, dim=1)
    velocity: torch.Tensor = full.proj_out(full.norm_out.norm(hidden) * (1 + scale)[:, None] + shift[:, None])
    return velocity
