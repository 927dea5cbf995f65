"""ControlNets on the tiny UNet, against diffusers' own pipeline and against the network called directly."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from invokeclone.engine.schedules import discrete
from invokeclone.families.stable_diffusion.conditioning import (
    BasicConditioningInfo,
    SDXLConditioningInfo,
    TextConditioning,
)
from invokeclone.families.stable_diffusion.control_image import ControlImage
from invokeclone.families.stable_diffusion.controlnet import ControlNet
from invokeclone.families.stable_diffusion.denoiser import Area, UNetCall
from tests.families.stable_diffusion.conftest import Denoise, Encode
from tests.tiny_models import SCHEDULER, UNET, noise_of

MODES = ["balanced", "more_prompt", "more_control", "unbalanced"]


def image_of(seed: int, side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def make_net(seed: int = 0, **changes: Any) -> Any:
    """Return a ControlNet for the tiny UNet whose last layers are not zero."""
    from diffusers.models.controlnets.controlnet import ControlNetModel

    torch.manual_seed(seed)
    names = ("block_out_channels", "down_block_types", "layers_per_block", "cross_attention_dim", "attention_head_dim")
    sizes = {name: UNET[name] for name in (*names, "norm_num_groups")}
    net = ControlNetModel(**{**sizes, "conditioning_embedding_out_channels": (4, 4, 8, 8), **changes}).eval()
    for weight in net.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.3)
    return net


@pytest.fixture(scope="module")
def net() -> Any:
    return make_net()


def control(net: Any, seed: int = 0, **settings: Any) -> ControlNet:
    return ControlNet(net, ControlImage(image_of(seed)), **settings)


@pytest.fixture
def call(encode: Encode) -> UNetCall:
    """Return a call for two rows, of an empty prompt's and then of a longer prompt."""
    longer = encode('("a cat", "a dog").and()')
    negative = replace(encode(""), positive=(False,))
    return UNetCall(noise_of(1, 2, 4, 8, 8), torch.tensor(500), negative.concat(longer), 0, 10, (8, 8))


def apply_control(control: ControlNet, call: UNetCall) -> UNetCall:
    with torch.inference_mode():
        control(call)
    return call


def rows_of(call: UNetCall, rows: list[int]) -> UNetCall:
    """Return the call that has these rows only."""
    return UNetCall(
        call.latents[rows], call.timestep, call.conditioning.select_rows(rows), call.index, call.count, call.size
    )


@pytest.mark.parametrize(("mode", "guess"), [("balanced", False), ("more_control", True)])
@pytest.mark.parametrize("name", ["euler", "ddim"])
def test_latents_match_diffusers(
    name: str, mode: str, guess: bool, net: Any, sd1_parts: dict[str, Any], denoise: Denoise
):
    from diffusers.pipelines.controlnet.pipeline_controlnet import StableDiffusionControlNetPipeline

    sampler = discrete.create(name, SCHEDULER)
    sampler.set_timesteps(4)
    noise = noise_of(1)
    begun = sampler.add_noise(torch.zeros_like(noise), noise, sampler.timesteps[:1]) / sampler.init_noise_sigma
    nets, images, weights = [net, make_net(1)], [image_of(0), image_of(1)], [0.8, 0.5]
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    for count in (1, 2):
        reference = StableDiffusionControlNetPipeline(
            **sd1_parts, controlnet=nets[:count], scheduler=discrete.create(name, SCHEDULER), **none
        )
        reference.set_progress_bar_config(disable=True)
        expected = reference(
            "a red circle", images[:count], negative_prompt="", latents=begun, num_inference_steps=4, guess_mode=guess,
            controlnet_conditioning_scale=weights[:count], guidance_scale=7.5, output_type="latent",
        ).images  # fmt: skip
        controls = [control(nets[n], n, weight=weights[n], mode=mode) for n in range(count)]
        latents = denoise(scheduler=name, controls=controls)
        assert torch.allclose(latents, expected, atol=1e-4)
        assert not torch.allclose(latents, denoise(scheduler=name), atol=1e-2)


@pytest.mark.parametrize("mode", MODES)
def test_control_modes(mode: str, net: Any, call: UNetCall):
    only, guess = mode in ("more_control", "unbalanced"), mode in ("more_control", "more_prompt")
    apply_control(control(net, weight=0.7, mode=mode), call)
    pixels = torch.from_numpy(np.asarray(image_of(0)).copy()).permute(2, 0, 1)[None] / 255
    for row, length in enumerate((77, 154)):
        embeds = call.conditioning.embeds[row : row + 1, :length]
        with torch.inference_mode():
            down, mid = net(call.latents[row : row + 1], 500, embeds, pixels, return_dict=False)
        scales = torch.logspace(-1, 0, len(down) + 1) if guess else torch.ones(len(down) + 1)
        for residual, plain, scale in zip([*call.down, call.mid], [*down, mid], scales, strict=True):
            expected = torch.zeros_like(plain) if only and row == 0 else plain * scale * 0.7
            assert torch.allclose(residual[row : row + 1], expected, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_separate_row_calls_match_the_batch(mode: str, net: Any, call: UNetCall):
    controlnet = control(net, mode=mode)
    batched = apply_control(controlnet, call)
    positive = apply_control(controlnet, rows_of(call, [1]))
    assert torch.allclose(batched.mid[1:], positive.mid, atol=1e-5)
    negative = apply_control(controlnet, rows_of(call, [0]))
    if negative.mid is None:
        assert mode in ("more_control", "unbalanced")
        assert not batched.mid[:1].any()
    else:
        assert torch.allclose(batched.mid[:1], negative.mid, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_one_call_or_two_give_the_same(mode: str, net: Any, denoise: Denoise):
    together = denoise(controls=[control(net, mode=mode)])
    assert torch.allclose(together, denoise(controls=[control(net, mode=mode)], sequential=True), atol=1e-4)


def test_a_batch_matches_its_single_rows(net: Any, denoise: Denoise):
    noises = noise_of(1, 2, 4, 8, 8)
    batched = denoise(noise=noises, seeds=[0, 0], controls=[control(net, mode="more_control")])
    rows = [denoise(noise=noises[row : row + 1], controls=[control(net, mode="more_control")]) for row in range(2)]
    assert torch.allclose(batched, torch.cat(rows), atol=1e-4)


def test_the_window_includes_both_ends(net: Any, call: UNetCall):
    controlnet = control(net, begin=0.25, end=0.55)
    active = []
    for index in range(10):
        call.index, call.mid = index, None
        call.down = None
        active.append(apply_control(controlnet, call).mid is not None)
    assert [index for index in range(10) if active[index]] == [2, 3, 4, 5, 6]


def test_per_step_weights(net: Any, call: UNetCall):
    listed = control(net, weight=[0.2, 0.0, 1.5])
    for index, weight in enumerate((0.2, 0.0, 1.5)):
        call.index, call.down, call.mid = index, None, None
        mid = apply_control(listed, call).mid
        call.down, call.mid = None, None
        expected = apply_control(control(net, weight=weight), call).mid
        assert (mid is None and weight == 0) or torch.equal(mid, expected)


def test_bgr_nets_are_supported(call: UNetCall):
    order = {"controlnet_conditioning_channel_order": "bgr"}
    swapped = ControlImage(Image.fromarray(np.asarray(image_of(0))[..., ::-1].copy()))
    mid = apply_control(control(make_net(0, **order)), call).mid
    call.down, call.mid = None, None
    assert torch.allclose(mid, apply_control(ControlNet(make_net(0), swapped), call).mid, atol=1e-5)


def test_pooled_conditions_are_averaged_without_guess_weights(call: UNetCall):
    pooled = apply_control(control(make_net(0, global_pool_conditions=True), mode="more_prompt", weight=0.5), call)
    means, mid = pooled.down, pooled.mid
    call.down, call.mid = None, None
    plain = apply_control(control(make_net(0), weight=0.5), call)
    for mean, part in zip([*means, mid], [*plain.down, plain.mid], strict=True):
        assert torch.allclose(mean, part.mean(dim=(2, 3), keepdim=True), atol=1e-5)


def test_an_area_gets_its_crop_of_the_image(net: Any, call: UNetCall):
    """The crop of an area has what a whole image of the same pixels gives."""
    large = ControlImage(image_of(3, side=128))
    call.size, call.area = (16, 16), Area(8, 16, 4, 12)
    mid = apply_control(ControlNet(net, large), call).mid
    call.down, call.mid, call.size, call.area = None, None, (8, 8), None
    part = ControlImage(image_of(3, side=128).crop((32, 64, 96, 128)))
    assert torch.allclose(mid, apply_control(ControlNet(net, part), call).mid, atol=1e-5)


def test_the_net_may_have_another_dtype(call: UNetCall):
    half = make_net(0).to(torch.bfloat16)
    mid = apply_control(control(half), call).mid
    assert mid.dtype == call.latents.dtype == torch.float32
    call.down, call.mid = None, None
    assert torch.allclose(mid, apply_control(control(make_net(0)), call).mid, atol=0.1)


def test_sdxl_nets_get_pooled_prompts_and_sizes():
    xl = make_net(
        0,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
    )
    infos = [SDXLConditioningInfo(noise_of(n, 1, 5, 32), noise_of(n, 1, 16), torch.ones(1, 6) * n) for n in (1, 2)]
    negative, positive = (TextConditioning.of_prompts([(infos[n], None)], positive=n == 1) for n in (0, 1))
    call = UNetCall(noise_of(1, 2, 4, 8, 8), torch.tensor(3), negative.concat(positive), 0, 1, (8, 8))
    mid = apply_control(control(xl, mode="unbalanced"), call).mid
    other = SDXLConditioningInfo(infos[1].embeds, infos[1].pooled_embeds, torch.ones(1, 6) * 9)
    for changed, same in ((infos[1], True), (other, False)):
        alone = TextConditioning.of_prompts([(changed, None)])
        single = UNetCall(call.latents[1:], call.timestep, alone, 0, 1, (8, 8))
        assert torch.allclose(mid[1:], apply_control(control(xl), single).mid, atol=1e-5) is same


def test_regional_masks_are_ignored(net: Any, encode: Encode):
    mask = torch.zeros(1, 8, 8)
    info = BasicConditioningInfo(encode("a cat").embeds)
    regional, plain = (TextConditioning.of_prompts([(info, m), (info, None)]) for m in (mask, None))
    mids = [
        apply_control(control(net), UNetCall(noise_of(1), torch.tensor(3), side, 0, 1, (8, 8))).mid
        for side in (regional, plain)
    ]
    assert torch.equal(*mids)
