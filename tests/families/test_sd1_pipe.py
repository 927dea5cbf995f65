"""Stable Diffusion 1's pipe against diffusers' own pipeline, and what it adds to that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from invokeclone.engine import autoencoder, preview, text
from invokeclone.engine.conditioning import BasicConditioningInfo, TextGuide, join
from invokeclone.engine.samplers import create
from invokeclone.families.sd1 import pipe
from invokeclone.graph.context import CanceledException
from invokeclone.graph.model_fields import FreeUConfig
from invokeclone.graph.taxonomy import BaseModelType

CPU = torch.device("cpu")
Load = Callable[[str], Any]


def noise_of(seed: int, side: int = 8) -> torch.Tensor:
    return torch.randn((1, 4, side, side), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def guides(submodel: Load) -> tuple[TextGuide, TextGuide]:
    tokenizer, encoder = submodel("tokenizer"), submodel("text_encoder")
    return tuple(TextGuide(pipe.encode(tokenizer, encoder, prompt, CPU)) for prompt in ("a red circle", ""))


@pytest.fixture
def task(guides: tuple[TextGuide, TextGuide], submodel: Load) -> Callable[..., pipe.DenoiseTask]:
    def make(**changes: Any) -> pipe.DenoiseTask:
        usual = {
            "positive": guides[0],
            "negative": guides[1],
            "scheduler": "euler",
            "scheduler_config": submodel("scheduler").config,
            "steps": 4,
            "noise": noise_of(1),
        }
        return pipe.DenoiseTask(**{**usual, **changes})

    return make


def denoise(submodel: Load, task: pipe.DenoiseTask, states: list | None = None) -> torch.Tensor:
    return pipe.denoise(submodel("unet"), task, CPU, ([] if states is None else states).append)


@pytest.mark.parametrize("name", ["euler", "ddim", "dpmpp_2m", "euler_k", "pndm", "heun", "unipc"])
def test_latents_are_those_of_diffusers(name: str, submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        vae=submodel("vae"),
        text_encoder=submodel("text_encoder"),
        tokenizer=submodel("tokenizer"),
        unet=submodel("unet"),
        scheduler=create(name, submodel("scheduler").config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "a red circle",
        negative_prompt="",
        latents=noise_of(1),
        num_inference_steps=4,
        guidance_scale=7.5,
        output_type="latent",
    ).images
    found = denoise(submodel, task(scheduler=name))
    assert torch.allclose(found, expected, atol=1e-4)
    rescaled = pipeline(
        "a red circle",
        negative_prompt="",
        latents=noise_of(1),
        num_inference_steps=4,
        guidance_rescale=0.7,
        output_type="latent",
    ).images
    assert torch.allclose(denoise(submodel, task(scheduler=name, cfg_rescale=0.7)), rescaled, atol=1e-4)


def test_prompts_without_language_are_encoded_as_compel_would(submodel: Load):
    tokenizer, encoder = submodel("tokenizer"), submodel("text_encoder")
    for prompt in ("", "a cat", "A Cat, sitting on a mat. It's 7 o'clock!"):
        with torch.inference_mode():
            short = text.encode(tokenizer, encoder, prompt, CPU)
            compels = text._weighted(tokenizer, encoder, prompt, CPU)
        assert short.shape == (1, 77, 32)
        assert torch.allclose(short, compels, atol=1e-6)


def test_the_prompt_language(submodel: Load):
    tokenizer, encoder = submodel("tokenizer"), submodel("text_encoder")
    plain, weighted, lowered, swapped = (
        pipe.encode(tokenizer, encoder, prompt, CPU)
        for prompt in ("a red cat", "a (red)1.5 cat", "a red-- cat", "a red cat.swap(dog)")
    )
    assert not torch.allclose(plain, weighted, atol=1e-4)
    assert not torch.allclose(plain, lowered, atol=1e-4)
    assert swapped.shape == plain.shape
    blended = pipe.encode(tokenizer, encoder, '("a cat", "a dog").blend(0.5, 0.5)', CPU)
    assert blended.shape == (1, 77, 32)
    assert pipe.encode(tokenizer, encoder, '("a cat", "a dog").and()', CPU).shape == (1, 154, 32)
    assert pipe.encode(tokenizer, encoder, "a very long prompt. " * 8, CPU).shape[1] % 77 == 0
    assert pipe.encode(tokenizer, encoder, "a very long prompt. " * 8, CPU).shape[1] > 77


def test_how_a_prompt_is_split_can_be_told(submodel: Load):
    tokenizer = submodel("tokenizer")
    words = tokenizer.tokenize("red cat")
    plain, weighted, blended, swapped = (
        text.tokenization(tokenizer, prompt).splitlines()
        for prompt in ("red cat", "a (red)1.5 cat", '("red", "cat").blend(0.5, 0.5)', "a red.swap(cat)")
    )
    assert plain == [
        f"{len(words)} tokens, 75 are read at once, of the prompt 'red cat'",
        f"1: {'|'.join(word.removesuffix('</w>') for word in words)}",
    ]
    assert [line.split(":")[0] for line in weighted[1:]] == ["1", "1.5", "1"]
    assert "".join(weighted[2].split(": ")[1].split("|")) == "red"
    for lines, parts in ((blended, ["red", "cat"]), (swapped, ["a", "red", "cat"])):
        assert ["".join(line.split(": ")[1].split("|")) for line in lines[1:]] == parts
    assert text.tokenization(tokenizer, "").splitlines() == ["0 tokens, 75 are read at once, of the prompt ''"]
    with pytest.raises(ValueError, match="cannot be read"):
        text.tokenization(tokenizer, '("a", "b").blend(1, 2, 3)')


def test_skipping_layers(submodel: Load):
    tokenizer, encoder = submodel("tokenizer"), submodel("text_encoder")
    with torch.inference_mode():
        tokens = tokenizer("a cat", padding="max_length", return_tensors="pt")["input_ids"]
        states = encoder(tokens, output_hidden_states=True).hidden_states
        expected, last = (encoder.final_layer_norm(states[place]) for place in (-2, -1))
    assert torch.allclose(pipe.encode(tokenizer, encoder, "a cat", CPU, skip=1), expected, atol=1e-5)
    assert pipe.encode(tokenizer, encoder, "a cat", CPU, skip=50).isfinite().all()
    assert torch.allclose(pipe.encode(tokenizer, encoder, "a cat", CPU), last, atol=1e-5)


def test_prompts_of_different_length_can_guide(submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    tokenizer, encoder = submodel("tokenizer"), submodel("text_encoder")
    longer = TextGuide(pipe.encode(tokenizer, encoder, '("a cat", "a dog").and()', CPU))
    together = denoise(submodel, task(positive=longer))
    assert torch.allclose(together, denoise(submodel, task(positive=longer, sequential=True)), atol=1e-4)


def test_one_call_or_two_give_the_same(submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    assert torch.allclose(denoise(submodel, task()), denoise(submodel, task(sequential=True)), atol=1e-4)


def test_scale_one_is_the_positive_prompt_alone(submodel: Load, task: Callable[..., pipe.DenoiseTask], guides: Any):
    alone = denoise(submodel, task(cfg_scale=1.0))
    assert torch.equal(alone, denoise(submodel, task(cfg_scale=1.0, negative=TextGuide(guides[1].embeds * 3))))
    assert torch.allclose(alone, denoise(submodel, task(cfg_scale=1.0000001)), atol=1e-4)


def test_a_scale_for_each_step(submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    assert torch.equal(denoise(submodel, task(cfg_scale=[5.0] * 4)), denoise(submodel, task(cfg_scale=5.0)))
    assert not torch.equal(
        denoise(submodel, task(cfg_scale=[5.0, 5.0, 5.0, 2.0])), denoise(submodel, task(cfg_scale=5.0))
    )
    assert torch.equal(denoise(submodel, task(cfg_scale=[5.0])), denoise(submodel, task(cfg_scale=5.0)))


def test_a_region_hears_only_its_prompt(submodel: Load, task: Callable[..., pipe.DenoiseTask], guides: Any):
    positive, negative = (guide.embeds for guide in guides)
    left = torch.zeros(1, 64, 64, dtype=torch.bool)
    left[..., :32] = True
    other = positive.flip(1) * 2
    whole = denoise(submodel, task())
    everywhere = join([(BasicConditioningInfo(positive), torch.ones_like(left))])
    assert torch.allclose(denoise(submodel, task(positive=everywhere)), whole, atol=1e-4)
    both = join([(BasicConditioningInfo(positive), left), (BasicConditioningInfo(other), ~left)])
    mixed = denoise(submodel, task(positive=both))
    assert mixed.isfinite().all()
    assert not torch.allclose(mixed, whole, atol=1e-3)
    sequential = denoise(submodel, task(positive=both, sequential=True))
    assert torch.allclose(mixed, sequential, atol=1e-4)
    uncovered = join([(BasicConditioningInfo(positive), torch.zeros_like(left))])
    assert torch.allclose(denoise(submodel, task(positive=uncovered)), whole, atol=1e-4)
    assert torch.equal(denoise(submodel, task()), whole), "the attention is as it was"
    assert negative.shape == positive.shape


def test_a_picture_is_kept_outside_the_mask(submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    original = noise_of(5) * 0.5
    keep = torch.ones(1, 1, 64, 64)
    keep[..., :32] = 0
    found = denoise(submodel, task(latents=original, keep_mask=keep, steps=6))
    assert torch.allclose(found[..., 5:], original[..., 5:])
    assert (found[..., :3] - original[..., :3]).abs().mean() > 0.1
    free = denoise(submodel, task(latents=original, keep_mask=torch.zeros_like(keep), steps=6))
    assert torch.allclose(free, denoise(submodel, task(latents=original, steps=6)), atol=1e-5)
    with pytest.raises(ValueError, match="needs latents"):
        denoise(submodel, task(keep_mask=keep))


@pytest.mark.parametrize("name", ["euler", "ddim", "heun", "dpmpp_2m", "lcm", "kdpm_2_a", "unipc"])
def test_masks_work_with_all_kinds_of_schedulers(name: str, submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    original = noise_of(5) * 0.5
    keep = torch.zeros(1, 1, 8, 8)
    keep[..., 4:] = 1
    found = denoise(submodel, task(scheduler=name, latents=original, keep_mask=keep, start=0.3, steps=6))
    assert torch.equal(found[..., 4:], original[..., 4:])
    assert not torch.allclose(found[..., :4], original[..., :4], atol=1e-2)


def test_a_gradient_mask_lets_places_join_later(submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    original = noise_of(5) * 0.5
    keep = torch.zeros(1, 1, 8, 8)
    keep[..., 2:4], keep[..., 4:6], keep[..., 6:] = 0.5, 0.9, 1.0
    found = denoise(submodel, task(latents=original, keep_mask=keep, gradient_mask=True, steps=10, scheduler="ddim"))
    change = [(found - original)[..., left : left + 2].abs().mean().item() for left in (0, 2, 4, 6)]
    assert change[0] > change[1] > change[2] > change[3] == 0


def test_pictures_begin_at_their_share_of_the_noise(submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    original = noise_of(5) * 0.5
    states: list = []
    little = denoise(submodel, task(latents=original, start=0.8, steps=10), states)
    much = denoise(submodel, task(latents=original, start=0.2, steps=10))
    assert (little - original).abs().mean() < (much - original).abs().mean()
    assert len(states) == 3
    assert states[-1].total_steps == 2
    again = denoise(submodel, task(latents=original, start=0.8, steps=10))
    assert torch.equal(little, again)


def test_two_halves_make_a_whole(submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    whole = denoise(submodel, task(scheduler="ddim", steps=6))
    half = denoise(submodel, task(scheduler="ddim", steps=6, end=0.5))
    rest = denoise(submodel, task(scheduler="ddim", steps=6, start=0.5, latents=half, noise=None))
    assert torch.allclose(rest, whole, atol=1e-5)


def test_sizes_must_fit(submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    with pytest.raises(ValueError, match="differ in size"):
        denoise(submodel, task(latents=noise_of(2, side=16)))
    odd = task(noise=torch.randn((1, 4, 5, 9), generator=torch.Generator().manual_seed(0)))
    assert denoise(submodel, odd).shape == (1, 4, 5, 9)


def test_canceling_stops_at_the_next_step(submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    told: list[int] = []

    def on_step(state: Any) -> None:
        told.append(state.step)
        if state.step == 2:
            raise CanceledException

    with pytest.raises(CanceledException):
        pipe.denoise(submodel("unet"), task(steps=50), CPU, on_step)
    assert told == [0, 1, 2]


def test_wrapping_edges_and_freeu_are_taken_off_again(submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    plain = denoise(submodel, task())
    wrapped = denoise(submodel, task(seamless_axes=["x"]))
    freed = denoise(submodel, task(free_u=FreeUConfig(s1=0.9, s2=0.2, b1=1.2, b2=1.4)))
    assert not torch.equal(plain, wrapped)
    assert freed.isfinite().all()
    assert torch.equal(plain, denoise(submodel, task()))


def test_a_seamless_picture_has_no_edge(submodel: Load):
    """Rolling the latents of a picture that wraps around rolls the picture."""
    vae, latents = submodel("vae"), noise_of(3)
    for block in vae.decoder.mid_block.attentions:
        block.group_norm.weight.data.mul_(1)  # attention has no place, so nothing to wrap
    wrapped = autoencoder.pixels_of(pipe.decode(vae, latents, CPU, seamless_axes=["x"]))
    rolled = autoencoder.pixels_of(pipe.decode(vae, latents.roll(4, dims=-1), CPU, seamless_axes=["x"]))
    assert (wrapped.roll(32, dims=-1) - rolled).abs().max() < 0.02
    plain = autoencoder.pixels_of(pipe.decode(vae, latents.roll(4, dims=-1), CPU))
    assert (wrapped.roll(32, dims=-1) - plain).abs().max() > 0.02


def test_pictures_and_latents(submodel: Load):
    vae = submodel("vae")
    image = Image.linear_gradient("L").resize((70, 50)).convert("RGB")
    latents = pipe.encode_image(vae, image, CPU)
    assert latents.shape == (1, 4, 6, 8)
    assert latents.dtype == torch.float32
    assert torch.equal(latents, pipe.encode_image(vae, image, CPU))
    picture = pipe.decode(vae, latents, CPU)
    assert picture.size == (64, 48)
    assert picture.mode == "RGB"


def test_tiles_are_for_one_call(submodel: Load):
    vae, latents = submodel("vae"), noise_of(3, side=24)
    whole = pipe.decode(vae, latents, CPU)
    tiled = pipe.decode(vae, latents, CPU, tile=64)
    assert tiled.size == whole.size == (192, 192)
    assert tiled.tobytes() != whole.tobytes()
    assert not vae.use_tiling
    assert pipe.decode(vae, latents, CPU, tile=0).size == (192, 192)
    assert pipe.encode_image(vae, whole, CPU, tile=64).shape == (1, 4, 24, 24)


def test_half_precision_that_overflows_is_computed_again(parts: dict[str, Any]):
    from tests.families.conftest import make_parts

    vae = make_parts()["vae"].to(torch.bfloat16)
    vae.decoder.conv_out.bias.data.fill_(float("inf"))
    latents = noise_of(3)
    pixels = autoencoder.decode(vae, latents, CPU)
    assert pixels.dtype == torch.float32
    assert vae.dtype == torch.bfloat16
    half = parts["vae"].dtype
    assert half == torch.float32


def test_fp32_is_for_one_call(parts: dict[str, Any]):
    from tests.families.conftest import make_parts

    vae = make_parts()["vae"].to(torch.bfloat16)
    assert autoencoder.decode(vae, noise_of(3), CPU).dtype == torch.bfloat16
    full = autoencoder.decode(vae, noise_of(3), CPU, fp32=True)
    assert full.dtype == torch.float32
    assert vae.dtype == torch.bfloat16
    assert (full - autoencoder.decode(parts["vae"], noise_of(3), CPU)).abs().max() < 0.1


def test_previews_have_a_pixel_per_latent():
    image = preview.preview(noise_of(1)[..., :6], BaseModelType.StableDiffusion1)
    assert image.size == (6, 8)
    assert image.mode == "RGB"
    assert preview.preview(torch.full((1, 4, 2, 2), float("nan")), BaseModelType.StableDiffusion1).getpixel((0, 0)) == (
        0,
        0,
        0,
    )
    assert preview.preview(torch.randn(1, 16, 3, 3), BaseModelType.Flux).size == (3, 3)


def test_colours_of_an_unknown_autoencoder_are_fitted():
    def encode(pictures: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.avg_pool2d(pictures, 8)
        return torch.cat([0.7 * small - 0.5, small.prod(dim=1, keepdim=True)], dim=1)

    colors = preview.fit(encode)
    picture = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(1)) * 2 - 1
    found = colors(encode(picture).permute(0, 2, 3, 1))
    assert torch.allclose(found, torch.nn.functional.avg_pool2d(picture, 8).permute(0, 2, 3, 1), atol=1e-3)
    assert colors.fits(4)
    assert not colors.fits(16)
    with preview.using(colors):
        used = preview.preview(noise_of(1), BaseModelType.StableDiffusion1)
    assert used.tobytes() != preview.preview(noise_of(1), BaseModelType.StableDiffusion1).tobytes()


def test_the_tiny_unet_knows_the_colours_of_its_autoencoder(submodel: Load, task: Callable[..., pipe.DenoiseTask]):
    colors = submodel("unet").latent_colors
    assert colors is not None
    seen: list[Any] = []
    pipe.denoise(submodel("unet"), task(), CPU, lambda _: seen.append(preview._current.get()))
    assert seen == [colors] * 5
    assert preview._current.get() is None


def test_an_inpainting_model_sees_mask_and_picture(task: Callable[..., pipe.DenoiseTask], tiny: Path):
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from tests.families.conftest import CONFIGS

    torch.manual_seed(0)
    unet = UNet2DConditionModel(**{**CONFIGS["unet"], "in_channels": 9}).eval()
    seen: list[torch.Tensor] = []
    unet.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    original, keep = noise_of(5), torch.ones(1, 1, 8, 8)
    keep[..., :4] = 0
    pipe.denoise(unet, task(latents=original, keep_mask=keep), CPU, lambda _: None)
    first = seen[0]
    assert first.shape == (2, 9, 8, 8)
    assert torch.equal(first[:1, 4:5], 1 - keep)
    assert torch.equal(first[0, 5:, :, 4:], original[0, :, :, 4:])
    assert not first[0, 5:, :, :4].any()
    pipe.denoise(unet, task(latents=original, keep_mask=keep, masked_latents=original * 2), CPU, lambda _: None)
    assert torch.equal(seen[-1][0, 5:], original[0] * 2)
    assert pipe.denoise(unet, task(), CPU, lambda _: None).isfinite().all()
