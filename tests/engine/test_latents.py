"""Noise, scaling and blending of latents, as formulas."""

import pytest
import torch
from torch.nn import functional

from invokeclone.engine import latents

CPU = torch.device("cpu")


def noise_of(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape or (1, 4, 8, 8), generator=torch.Generator().manual_seed(seed))


def test_noise_matches_torch():
    assert torch.equal(latents.noise(5, (1, 4, 8, 8), CPU), noise_of(5))
    assert torch.equal(latents.noise(2**32 + 5, (1, 4, 8, 8), CPU), noise_of(5)), "seeds are taken modulo 2^32"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_noise_is_the_same_noise_rounded(dtype: torch.dtype):
    drawn = latents.noise(5, (1, 4, 64, 64), CPU, dtype)
    assert drawn.dtype == dtype
    assert torch.allclose(drawn.float(), noise_of(5, 1, 4, 64, 64), rtol=torch.finfo(dtype).eps, atol=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area", "nearest-exact"])
def test_resizing(mode: latents.InterpolationMode):
    resized = latents.resize(noise_of(1), 12, 5, mode)
    assert torch.equal(resized, functional.interpolate(noise_of(1), size=(12, 5), mode=mode))


def test_antialiasing_is_for_the_smooth_modes_only():
    for mode in ("bilinear", "bicubic"):
        assert not torch.equal(
            latents.resize(noise_of(1), 3, 3, mode, antialias=True), latents.resize(noise_of(1), 3, 3, mode)
        )
    assert torch.equal(
        latents.resize(noise_of(1), 3, 3, "area", antialias=True), latents.resize(noise_of(1), 3, 3, "area")
    )


@pytest.mark.parametrize("mode", ["linear", "trilinear"])
def test_modes_for_other_dimensions_are_refused(mode: latents.InterpolationMode):
    with pytest.raises(ValueError, match="does not work on images"):
        latents.resize(noise_of(1), 4, 4, mode)
    with pytest.raises(ValueError, match="does not work on images"):
        latents.scale(noise_of(1), 2.0, mode)


def test_scale_samples_at_multiples_of_the_factor():
    """Sides are rounded down, and a location is the factor's inverse apart from the next, not the sizes' ratio."""
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    scaled = latents.scale(ramp, 1.3, "bilinear")
    assert scaled.shape[-2:] == (10, 10)
    locations = (torch.arange(10) + 0.5) / 1.3 - 0.5
    assert torch.allclose(scaled[0, 0, 0], locations.clamp(0, 7), atol=1e-5)
    assert not torch.allclose(scaled, latents.resize(ramp, 10, 10, "bilinear"), atol=1e-2)


def test_scaling_to_zero_size_is_refused():
    with pytest.raises(ValueError, match="is too small"):
        latents.scale(noise_of(1), 0.1, "bilinear")


class TestBlend:
    FIRST, SECOND = noise_of(1), noise_of(2)

    def test_blending_is_spherical(self):
        mixed = latents.blend(self.FIRST, self.SECOND, 0.3)
        a, b = self.FIRST.double(), self.SECOND.double()
        angle = torch.acos((a * b).sum() / (a.norm() * b.norm()))
        expected = torch.sin(0.7 * angle) / torch.sin(angle) * a + torch.sin(0.3 * angle) / torch.sin(angle) * b
        assert torch.allclose(mixed, expected.float(), atol=1e-5)
        assert mixed.std() == pytest.approx(1, abs=0.15), "the amount of noise stays"

    def test_parallel_latents_are_blended_linearly(self):
        assert torch.allclose(latents.blend(self.FIRST, self.FIRST * 3, 0.5), self.FIRST * 2, atol=1e-5)
        assert torch.allclose(latents.blend(self.FIRST, -self.FIRST, 0.25), self.FIRST * 0.5, atol=1e-5)

    def test_white_mask_areas_keep_the_first_latents(self):
        mask = torch.zeros(1, 1, 8, 8)
        mask[..., 4:] = 1.0
        assert torch.allclose(
            latents.blend(self.FIRST, self.SECOND, 1.0, mask)[..., 4:], self.FIRST[..., 4:], atol=1e-5
        )
        assert torch.allclose(
            latents.blend(self.FIRST, self.SECOND, 1.0, mask)[..., :4], self.SECOND[..., :4], atol=1e-5
        )
        mixed = latents.blend(self.FIRST, self.SECOND, 0.5, mask)
        target = torch.where(mask > 0, self.FIRST, self.SECOND)
        assert torch.allclose(mixed, latents.blend(self.FIRST, target, 0.5), atol=1e-5), "the blend is of the whole"

    def test_masks_of_another_size_are_resized(self):
        mask = torch.zeros(1, 64, 64)
        mask[..., 32:] = 1.0
        mixed = latents.blend(self.FIRST, self.SECOND, 1.0, mask)
        assert torch.allclose(mixed[..., 4:], self.FIRST[..., 4:], atol=1e-5)

    def test_shapes_must_agree(self):
        with pytest.raises(ValueError, match="same shape"):
            latents.blend(self.FIRST, noise_of(2, 1, 4, 2, 2), 0.5)
        assert latents.blend(self.FIRST.half(), self.SECOND.half(), 0.5).dtype == torch.float16
