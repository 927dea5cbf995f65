"""T2I-Adapters on a tiny UNet, against diffusers' own pipeline and against the network called directly."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from invokeclone.engine.schedules import discrete
from invokeclone.families.stable_diffusion.control_image import ControlImage
from invokeclone.families.stable_diffusion.denoiser import Area, UNetCall
from invokeclone.families.stable_diffusion.t2i_adapter import T2IAdapter
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from tests.families.stable_diffusion.conftest import Denoise, Encode
from tests.tiny_models import SCHEDULER, make_unet, noise_of

SD1, SDXL = BaseModelType.StableDiffusion1, BaseModelType.StableDiffusionXL
CHANNELS = [8, 8, 16, 16]


def image_of(seed: int, width: int = 128, height: int = 128) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255


def make_net(seed: int = 0, **changes: Any) -> Any:
    from diffusers.models.adapter import T2IAdapter as Net

    torch.manual_seed(seed)
    sizes = {"channels": CHANNELS, "num_res_blocks": 1, "downscale_factor": 8, "adapter_type": "full_adapter"}
    return Net(**{**sizes, **changes}).eval()


@pytest.fixture(scope="module")
def net() -> Any:
    return make_net()


@pytest.fixture(scope="module")
def unet() -> Any:
    """Return a UNet with four levels, as adapters expect it."""
    return make_unet(
        block_out_channels=CHANNELS,
        down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    )


def call_of(encode: Encode, height: int = 16, width: int = 16, rows: int = 1) -> UNetCall:
    conditioning = encode("a cat").expand(rows)
    return UNetCall(noise_of(1, rows, 4, height, width), torch.tensor(500), conditioning, 0, 10, (height, width))


def apply_adapter(adapter: T2IAdapter, call: UNetCall) -> UNetCall:
    with torch.inference_mode():
        adapter(call)
    return call


def test_latents_match_diffusers(net: Any, unet: Any, sd1_parts: dict[str, Any], denoise: Denoise):
    from diffusers.pipelines.t2i_adapter.pipeline_stable_diffusion_adapter import StableDiffusionAdapterPipeline

    sampler = discrete.create("euler", SCHEDULER)
    sampler.set_timesteps(4)
    noise = noise_of(1, 1, 4, 16, 16)
    begun = sampler.add_noise(torch.zeros_like(noise), noise, sampler.timesteps[:1]) / sampler.init_noise_sigma
    none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    reference = StableDiffusionAdapterPipeline(
        **{**sd1_parts, "unet": unet}, adapter=net, scheduler=discrete.create("euler", SCHEDULER), **none
    )
    reference.set_progress_bar_config(disable=True)
    expected = reference(
        "a red circle", pixels_of(image_of(0)), negative_prompt="", latents=begun, num_inference_steps=4,
        adapter_conditioning_scale=0.8, guidance_scale=7.5, output_type="latent",
    ).images  # fmt: skip
    adapter = T2IAdapter(net, SD1, ControlImage(image_of(0)), weight=0.8)
    latents = denoise(unet=unet, noise=noise, controls=[adapter])
    assert torch.allclose(latents, expected, atol=1e-4)
    assert not torch.allclose(latents, denoise(unet=unet, noise=noise), atol=1e-2)


def test_features_are_the_same_for_all_rows_and_add_up(net: Any, encode: Encode):
    call = call_of(encode, rows=2)
    second = make_net(1)
    for model, seed, weight in ((net, 0, 0.5), (second, 1, 2.0)):
        apply_adapter(T2IAdapter(model, SD1, ControlImage(image_of(seed)), weight=weight), call)
    with torch.inference_mode():
        first, other = net(pixels_of(image_of(0))), second(pixels_of(image_of(1)))
    for part, a, b in zip(call.features, first, other, strict=True):
        assert len(part) == 2
        assert torch.allclose(part, (0.5 * a + 2.0 * b).expand_as(part), atol=1e-5)


def test_the_window_includes_both_ends(net: Any, encode: Encode):
    call, active = call_of(encode), []
    adapter = T2IAdapter(net, SD1, ControlImage(image_of(0)), weight=[1.0] * 3 + [0.0] + [1.0], begin=0.25, end=0.55)
    for index in range(10):
        call.index, call.features = index, None
        if apply_adapter(adapter, call).features is not None:
            active.append(index)
    assert active == [2, 4, 5, 6]


def test_the_net_runs_once_for_each_area(net: Any, encode: Encode, monkeypatch: pytest.MonkeyPatch):
    inputs: list[torch.Tensor] = []
    forward = net.forward
    monkeypatch.setattr(net, "forward", lambda pixels: inputs.append(pixels) or forward(pixels))
    adapter = T2IAdapter(net, SD1, ControlImage(image_of(0, 256, 128)))
    areas = [Area(0, 16, 0, 16), Area(0, 16, 16, 32)]
    for _ in range(2):
        for area in areas:
            call = call_of(encode)
            call.size, call.area = (16, 32), area
            apply_adapter(adapter, call)
    whole = pixels_of(image_of(0, 256, 128))
    assert len(inputs) == 2
    assert torch.allclose(inputs[0], whole[..., :128])
    assert torch.allclose(inputs[1], whole[..., 128:])


def test_indivisible_sides_are_cropped_and_features_padded(net: Any, unet: Any, encode: Encode):
    call = call_of(encode, height=18, width=20)
    image = image_of(0, 160, 144)
    apply_adapter(T2IAdapter(net, SD1, ControlImage(image)), call)
    assert [tuple(part.shape[-2:]) for part in call.features] == [(18, 20), (9, 10), (5, 5), (3, 3)]
    with torch.inference_mode():
        maps = net(pixels_of(image)[..., :128, :128])
    for part, plain in zip(call.features, maps, strict=True):
        height, width = plain.shape[-2:]
        assert torch.allclose(part[..., :height, :width], plain)
        assert not part[..., height:, :].any()
        assert not part[..., width:].any()


def test_sdxl_nets_get_bgr_and_their_own_size_multiple(encode: Encode):
    xl = make_net(0, channels=[8, 8, 16, 16], downscale_factor=16, adapter_type="full_adapter_xl")
    call = call_of(encode, height=12, width=22)
    image = image_of(0, 176, 96)
    apply_adapter(T2IAdapter(xl, SDXL, ControlImage(image)), call)
    with torch.inference_mode():
        maps = xl(pixels_of(image).flip(1)[..., :160])
    for part, plain in zip(call.features, maps, strict=True):
        assert torch.allclose(part[..., : plain.shape[-2], : plain.shape[-1]], plain)


def test_single_channel_nets_get_the_first_channel(encode: Encode):
    gray = make_net(0, in_channels=1)
    call = apply_adapter(T2IAdapter(gray, SD1, ControlImage(image_of(0))), call_of(encode))
    with torch.inference_mode():
        assert torch.allclose(call.features[0], gray(pixels_of(image_of(0))[:, :1])[0])


def test_the_net_may_have_another_dtype(encode: Encode):
    call = apply_adapter(T2IAdapter(make_net(0).to(torch.bfloat16), SD1, ControlImage(image_of(0))), call_of(encode))
    assert {part.dtype for part in call.features} == {torch.float32}


def test_images_too_small_for_an_adapter(net: Any, encode: Encode):
    with pytest.raises(ValueError, match="at least 64 pixels"):
        apply_adapter(T2IAdapter(net, SD1, ControlImage(image_of(0))), call_of(encode, height=16, width=7))
