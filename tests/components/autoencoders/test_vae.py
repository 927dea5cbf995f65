"""Images to latents and back: sizes, number formats, tiles, and the image without what a mask hides."""

from typing import Any

import pytest
import torch
from PIL import Image

from invokeclone.components.autoencoders import vae as autoencoder
from tests.tiny_flux import make_vae as make_vae16
from tests.tiny_models import make_vae, noise_of

CPU = torch.device("cpu")


@pytest.fixture
def vae(sd1_parts: dict[str, Any]) -> Any:
    return sd1_parts["vae"]


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "xpu", "mps"])
def test_devices_use_half_precision_unless_fp32_is_set(device: str):
    assert autoencoder.choose_dtype(device, fp32=False) == torch.float16
    assert autoencoder.choose_dtype(device, fp32=True) == torch.float32
    assert autoencoder.choose_dtype("cpu", fp32=False) == torch.float32


def test_image_tensors_fit_the_latent_grid():
    image = Image.new("RGBA", (13, 20), (0, 255, 102, 0))
    pixels = autoencoder.image_to_tensor(image)
    assert pixels.shape == (1, 3, 16, 8)
    assert pixels[0, :, 0, 0].tolist() == pytest.approx([-1.0, 1.0, -0.2]), "transparency is dropped"
    mask = autoencoder.mask_to_tensor(Image.new("L", (8, 17), 51))
    assert mask.shape == (1, 1, 16, 8)
    assert float(mask[0, 0, 0, 0]) == pytest.approx(0.2)
    assert autoencoder.fit_to_grid(Image.new("L", (5, 9))).size == (8, 8), "never smaller than a latent"


def test_images_are_resized_to_the_grid_with_lanczos():
    image = Image.linear_gradient("L").resize((70, 50))
    expected = image.resize((64, 48), Image.Resampling.LANCZOS)
    assert autoencoder.fit_to_grid(image).tobytes() == expected.tobytes()


def test_image_colors_are_rounded_and_clamped():
    pixels = torch.tensor([-1.1, 0.999, 0.0]).reshape(1, 3, 1, 1)
    assert autoencoder.tensor_to_image(pixels).getpixel((0, 0)) == (0, 255, 128)


def test_latents_are_scaled_samples_of_the_distribution(vae: Any):
    pixels = noise_of(1, 1, 3, 32, 24).clamp(-1, 1)
    latents = autoencoder.encode(vae, pixels, CPU)
    with torch.inference_mode():
        distribution = vae.encode(pixels).latent_dist
        drawn = torch.randn(distribution.mean.shape, generator=torch.Generator().manual_seed(0))
    expected = (distribution.mean + distribution.std * drawn) * vae.config.scaling_factor
    assert torch.allclose(latents, expected, atol=1e-6)
    assert torch.equal(latents, autoencoder.encode(vae, pixels, CPU)), "the same image gives the same latents"


def test_latents_are_shifted_where_the_autoencoder_says_so():
    shifted = make_vae()
    shifted.register_to_config(shift_factor=0.5)
    plain, latents = make_vae(), noise_of(3)
    factor = plain.config.scaling_factor
    assert torch.allclose(
        autoencoder.decode(shifted, latents, CPU), autoencoder.decode(plain, latents + 0.5 * factor, CPU), atol=1e-5
    )
    pixels = noise_of(1, 1, 3, 32, 24)
    assert torch.allclose(
        autoencoder.encode(shifted, pixels, CPU), autoencoder.encode(plain, pixels, CPU) - 0.5 * factor, atol=1e-5
    )


def test_a_batch_is_decoded_row_by_row(vae: Any):
    latents = noise_of(3, 2, 4, 8, 8)
    together = autoencoder.decode(vae, latents, CPU)
    for row in range(2):
        assert torch.allclose(together[row : row + 1], autoencoder.decode(vae, latents[row : row + 1], CPU), atol=1e-5)


def test_tiling_applies_to_one_call_only(vae: Any):
    latents = noise_of(3, 1, 4, 24, 24)
    whole = autoencoder.decode(vae, latents, CPU)
    tiled = autoencoder.decode(vae, latents, CPU, tile=64)
    assert tiled.shape == whole.shape == (1, 3, 192, 192)
    assert not torch.equal(tiled, whole)
    assert not vae.use_tiling
    assert torch.equal(autoencoder.decode(vae, latents, CPU, tile=0), tiled), "its own size is 64 too"
    assert not torch.equal(autoencoder.decode(vae, latents, CPU, tile=128), tiled)
    pixels = whole.clamp(-1, 1)
    assert not torch.equal(autoencoder.encode(vae, pixels, CPU, tile=64), autoencoder.encode(vae, pixels, CPU))


def test_tiling_matches_diffusers(vae: Any):
    latents = noise_of(3, 1, 4, 24, 24)
    other = make_vae()
    other.enable_tiling()
    with torch.inference_mode():
        expected = other.decode(latents / other.config.scaling_factor).sample
    assert torch.allclose(autoencoder.decode(vae, latents, CPU, tile=0), expected, atol=1e-5)


@pytest.mark.parametrize("tile", [0, 48])
def test_tiles_of_16_channels_match_diffusers_and_bound_the_work(tile: int):
    vae, latents, sizes = make_vae16(), noise_of(3, 1, 16, 16, 24), []
    side = {0: vae.config.sample_size, 48: 32}[tile]  # a tile of 48 would overlap by a fraction of a latent
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _module, _inputs, output: sizes.append(max(output.shape[-2:])))
    tiled = autoencoder.decode(vae, latents, CPU, tile=tile)
    assert max(sizes) <= side
    assert tiled.shape == (1, 3, 128, 192)
    other = make_vae16()
    other.enable_tiling()
    other.tile_sample_min_size, other.tile_latent_min_size = side, side // 8
    with torch.inference_mode():
        expected = other.decode(latents / other.config.scaling_factor + other.config.shift_factor).sample
    assert torch.allclose(tiled, expected, atol=1e-5)
    sizes.clear()
    encoded = autoencoder.encode(vae, tiled.clamp(-1, 1), CPU, tile=tile)
    assert encoded.shape == latents.shape
    assert max(sizes) <= side + 1  # diffusers pads the input of a downsampling by one


def test_tiles_of_an_autoencoder_without_a_size_are_not_tiny():
    vae, sizes = make_vae(), set()
    vae.tile_sample_min_size, vae.tile_latent_min_size = 32, 4  # as for a configuration without sample_size
    vae.decoder.conv_in.register_forward_hook(lambda _module, _inputs, output: sizes.add(tuple(output.shape[-2:])))
    autoencoder.decode(vae, noise_of(3, 1, 4, 68, 32), CPU, tile=0)
    assert (64, 32) in sizes
    assert (vae.tile_sample_min_size, vae.tile_latent_min_size, vae.use_tiling) == (32, 4, False)


def test_half_precision_overflow_is_retried_in_float32():
    vae = make_vae().to(torch.bfloat16)
    vae.decoder.conv_out.register_forward_hook(
        lambda _module, _inputs, output: output if output.dtype == torch.float32 else output.fill_(torch.inf)
    )
    pixels = autoencoder.decode(vae, noise_of(3), CPU, torch.bfloat16)
    assert pixels.dtype == torch.float32
    assert torch.isfinite(pixels).all()
    assert vae.dtype == torch.bfloat16


def test_nan_errors_name_the_vae_or_the_latents(vae: Any):
    with pytest.raises(ValueError, match="the latents to decode have NaN or infinite values"):
        autoencoder.decode(vae, torch.full((1, 4, 8, 8), torch.nan), CPU)
    damaged = make_vae()
    damaged.decoder.conv_out.bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="this VAE is damaged, it produces NaN or infinite values"):
        autoencoder.decode(damaged, noise_of(3), CPU)


def test_latents_with_the_wrong_channel_count_are_refused(vae: Any):
    with pytest.raises(ValueError, match=r"needs latents of 4 channels, not 16: select a VAE of the main model's base"):
        autoencoder.decode(vae, noise_of(1, 1, 16, 8, 8), CPU)


def test_dtype_applies_to_one_call_only(vae: Any):
    half = make_vae().to(torch.bfloat16)
    assert autoencoder.decode(half, noise_of(3), CPU, torch.bfloat16).dtype == torch.bfloat16
    full = autoencoder.decode(half, noise_of(3), CPU, torch.float32)
    assert full.dtype == torch.float32
    assert half.dtype == torch.bfloat16
    assert (full - autoencoder.decode(vae, noise_of(3), CPU)).abs().max() < 0.1
    assert autoencoder.encode(half, noise_of(1, 1, 3, 16, 16), CPU, torch.bfloat16).dtype == torch.float32


class TestHideMasked:
    def test_masked_pixels_become_zero(self):
        pixels = torch.full((1, 3, 8, 8), 0.75)
        mask = torch.tensor([0.0, 0.4, 0.49, 0.5, 0.6, 0.9, 1.0, 1.0]).expand(1, 1, 8, 8)
        hidden = autoencoder.hide_masked(pixels, mask)
        assert hidden[0, 0, 0].tolist() == [0.0] * 3 + [0.75] * 5, "0.0 in -1..1, between gray 127 and 128"

    def test_the_mask_is_resized_to_the_image(self):
        mask = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).reshape(1, 1, 2, 2)
        hidden = autoencoder.hide_masked(torch.ones(1, 3, 4, 8), mask)
        assert hidden.shape == (1, 3, 4, 8)
        assert hidden[0, 2, 3].tolist() == [0.0] * 4 + [1.0] * 4
