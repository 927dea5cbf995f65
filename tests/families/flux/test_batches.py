"""Several images in one run of FLUX.1: each is that of a run of its own, with every kind of control."""

from typing import Any

import pytest
import torch

from invokeclone.components.flux.regions import PromptRegion
from invokeclone.families.flux.conditioning import build_conditioning
from invokeclone.families.flux.controlnet import FluxControlNet
from invokeclone.families.flux.ip_adapter import FluxImagePrompt
from invokeclone.families.flux.reference_images import control_tokens, fill_tokens, kontext_references
from tests.families.flux.test_controls import BLOCKS, make_controlnet
from tests.families.flux.test_pipeline import (
    CPU,
    HEIGHT,
    WIDTH,
    Text,
    assert_close,
    image_of,
    noise_of,
    run,
    side,
    task_of,
)
from tests.tiny_flux import TRANSFORMER, make_transformer


def controls(vae: Any, mode: int | None, **changes: Any) -> dict[str, Any]:
    return {
        "controls": [
            FluxControlNet(make_controlnet(**changes), control_tokens(vae, image_of(5), CPU), BLOCKS, mode=mode)
        ]
    }


def image_prompt() -> FluxImagePrompt:
    width = TRANSFORMER["attention_head_dim"] * TRANSFORMER["num_attention_heads"]  # type: ignore[operator]
    generator = torch.Generator().manual_seed(8)
    sides = {0: (torch.randn(1, 4, width, generator=generator), torch.randn(1, 4, width, generator=generator))}
    return FluxImagePrompt(sides, sides)


def regions(text: Text) -> dict[str, Any]:
    left = torch.zeros(1, HEIGHT, WIDTH)
    left[..., : WIDTH // 2] = 1
    prompts = [PromptRegion(text(1)[0], left), PromptRegion(text(2)[0])]
    return {"positive": build_conditioning(prompts, text(1)[1], HEIGHT // 16, WIDTH // 16, positive=True)}


@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        "cfg",
        "fill",
        "kontext",
        "controlnet",
        "union",
        "union without a mode",
        "xlabs",
        "image prompt",
        "regions",
    ],
)
def test_each_row_is_that_of_its_own_run(kind: str, flux_transformer: Any, flux_vae: Any, flux_text: Text) -> None:
    transformer, settings = flux_transformer, {}
    xlabs = {"num_single_layers": 0, "conditioning_embedding_channels": 16, "patch_size": 2}
    changes: dict[str, Any]
    match kind:
        case "cfg":
            settings, changes = {"cfg_scale": 2.0}, {"negative": side(flux_text(2), positive=False)}
        case "fill":
            transformer = make_transformer(in_channels=384, out_channels=64)
            change = torch.ones(1, 1, HEIGHT, WIDTH)
            changes = {"added": fill_tokens(flux_vae, image_of(3), change, CPU)}
        case "kontext":
            changes = {"references": kontext_references(flux_vae, [image_of(4)], CPU)} | controls(flux_vae, None)
        case "controlnet":
            changes = controls(flux_vae, None)
        case "union":
            changes = controls(flux_vae, 2, num_mode=4)
        case "union without a mode":
            changes = controls(flux_vae, None, num_mode=4)
        case "xlabs":
            changes = {"controls": [FluxControlNet(make_controlnet(**xlabs), image_of(5), BLOCKS)]}
        case "image prompt":
            changes = {"image_prompts": [image_prompt()]}
        case "regions":
            changes = regions(flux_text)
        case _:
            changes = {}
    noises = [noise_of(1), noise_of(2)]
    both = run(transformer, task_of(flux_text, {**settings, "noise": torch.cat(noises)}, **changes))
    single = [run(transformer, task_of(flux_text, {**settings, "noise": noise}, **changes)) for noise in noises]
    assert_close(both, torch.cat(single))


def test_images_with_a_mask(flux_transformer: Any, flux_text: Text) -> None:
    """One image may be varied by several noises, and several images may share one noise."""
    keep = torch.ones(1, 1, HEIGHT, WIDTH)
    keep[..., : WIDTH // 2] = 0.0
    originals, noises = (torch.cat([noise_of(seed), noise_of(seed + 1)]) for seed in (3, 5))
    for latents, noise in ((originals, noises), (originals, noises[:1]), (originals[:1], noises)):
        inputs = {"latents": latents, "noise": noise, "keep_mask": keep, "start": 0.3}
        both = run(flux_transformer, task_of(flux_text, inputs))
        rows = zip(latents.expand_as(originals), noise.expand_as(noises), strict=True)
        single = [
            run(flux_transformer, task_of(flux_text, inputs | {"latents": row[None], "noise": own[None]}))
            for row, own in rows
        ]
        assert_close(both, torch.cat(single))
    three = {"latents": originals, "noise": torch.cat([noises, noises[:1]])}
    with pytest.raises(ValueError, match="latents has 2 images and noise 3"):
        run(flux_transformer, task_of(flux_text, three))


def test_controlnets_of_another_number_format_than_the_latents(flux_vae: Any, flux_text: Text) -> None:
    """After FLUX.1 Fill's first step on the CPU, latents are in float32."""
    transformer = make_transformer(in_channels=384, out_channels=64).bfloat16()
    added = fill_tokens(flux_vae, image_of(3), torch.ones(1, 1, HEIGHT, WIDTH), CPU)
    changes = controls(flux_vae, None)
    changes["controls"][0].net.bfloat16()
    plain = run(transformer, task_of(flux_text, added=added))
    assert not torch.allclose(run(transformer, task_of(flux_text, added=added, **changes)), plain, atol=1e-2)


@pytest.mark.parametrize(
    ("text", "pooled", "message"),
    [((1, 6, 16), (1, 32), r"T5 text encoder .* \(width 16, not 24\)"), ((1, 6, 24), (1, 80), "select CLIP-L")],
)
def test_prompts_of_other_encoders_are_named(
    flux_transformer: Any, flux_text: Text, text: tuple[int, ...], pooled: tuple[int, ...], message: str
) -> None:
    positive = side((torch.zeros(text), torch.zeros(pooled)))
    with pytest.raises(ValueError, match=message):
        run(flux_transformer, task_of(flux_text, positive=positive))
    with pytest.raises(ValueError, match="different widths"):
        build_conditioning(
            [PromptRegion(torch.zeros(1, 2, 24)), PromptRegion(torch.zeros(1, 2, 16))], torch.zeros(1, 32), 2, 2,
            positive=True,
        )  # fmt: skip


def test_autoencoders_of_other_families_are_named() -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from tests.tiny_flux import VAE

    vae = AutoencoderKL(**{**VAE, "latent_channels": 4})
    for encode in (
        lambda: control_tokens(vae, image_of(1), CPU),
        lambda: fill_tokens(vae, image_of(1), torch.ones(1, 1, HEIGHT, WIDTH), CPU),
        lambda: kontext_references(vae, [image_of(1)], CPU),
    ):
        with pytest.raises(ValueError, match="makes latents of 4 channels, but FLUX"):
            encode()


def test_reference_images_have_a_least_size(flux_vae: Any) -> None:
    with pytest.raises(ValueError, match="at least 8 x 8 pixels"):
        kontext_references(flux_vae, [image_of(1, 64, 4)], CPU)
