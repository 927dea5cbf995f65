"""Denoising under a mask: with plain models, gradient masks, and inpainting models, which see the mask themselves."""

from typing import Any

import pytest
import torch

from invokeclone.engine.schedules import discrete
from invokeclone.families.stable_diffusion import pipeline
from tests.families.stable_diffusion.conftest import CPU, Denoise, MakeTask
from tests.tiny_models import SCHEDULER, make_unet, noise_of

ORIGINAL = noise_of(5) * 0.5


def keep_right(side: int = 8) -> torch.Tensor:
    """Return a mask whose right half stays."""
    keep = torch.zeros(1, 1, side, side)
    keep[..., side // 2 :] = 1.0
    return keep


def test_the_original_is_kept_under_white(denoise: Denoise):
    latents = denoise(latents=ORIGINAL, keep_mask=keep_right(64), steps=6)
    assert torch.allclose(latents[..., 5:], ORIGINAL[..., 5:])
    assert (latents[..., :3] - ORIGINAL[..., :3]).abs().mean() > 0.1
    free = denoise(latents=ORIGINAL, keep_mask=torch.zeros(1, 1, 64, 64), steps=6)
    assert torch.allclose(free, denoise(latents=ORIGINAL, steps=6), atol=1e-5)


@pytest.mark.parametrize("name", ["euler", "ddim", "heun", "dpmpp_2m", "lcm", "kdpm_2_a", "unipc"])
def test_masks_work_with_all_kinds_of_schedulers(name: str, denoise: Denoise):
    latents = denoise(scheduler=name, latents=ORIGINAL, keep_mask=keep_right(), start=0.3, steps=6)
    assert torch.equal(latents[..., 4:], ORIGINAL[..., 4:])
    assert not torch.allclose(latents[..., :4], ORIGINAL[..., :4], atol=1e-2)


def test_masks_are_downscaled_bilinearly(denoise: Denoise):
    """Between what stays and what changes lies a mixture of both."""
    keep = torch.zeros(1, 1, 16, 16)
    keep[..., 9:] = 1.0
    latents = denoise(latents=ORIGINAL, keep_mask=keep)
    alone = denoise(latents=ORIGINAL, keep_mask=torch.tensor([0.0] * 4 + [0.5] + [1.0] * 3).expand(1, 1, 8, 8))
    assert torch.equal(latents, alone)


def test_without_latents_the_original_is_zero(denoise: Denoise):
    latents = denoise(keep_mask=keep_right())
    assert not latents[..., 4:].any()
    assert (latents[..., :4].abs() > 0).all()


def test_an_empty_schedule_restores_the_original(denoise: Denoise):
    latents = denoise(latents=ORIGINAL, keep_mask=keep_right(), start=0.5, end=0.5)
    assert torch.equal(latents[..., 4:], ORIGINAL[..., 4:])
    assert not torch.allclose(latents[..., :4], ORIGINAL[..., :4], atol=1e-2)


def test_noisy_latents_are_masked_with_noise_of_the_seed(make_task: MakeTask, sd1_parts: dict[str, Any]):
    inputs: list[torch.Tensor] = []
    hook = sd1_parts["unet"].conv_in.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    keep = torch.ones(1, 1, 8, 8)
    task = make_task(scheduler="ddim", latents=ORIGINAL, noise=None, keep_mask=keep, seeds=(77,))
    try:
        pipeline.denoise(sd1_parts["unet"], task, CPU, lambda _: None)
    finally:
        hook.remove()
    sampler = discrete.create("ddim", SCHEDULER)
    noisy = sampler.add_noise(ORIGINAL, noise_of(77), torch.tensor([751]))
    assert torch.allclose(inputs[0][:1], noisy, atol=1e-6)


def test_gray_areas_of_a_gradient_mask_start_changing_later(denoise: Denoise):
    keep = torch.zeros(1, 1, 8, 8)
    keep[..., 2:4], keep[..., 4:6], keep[..., 6:] = 0.5, 0.9, 1.0
    latents = denoise(latents=ORIGINAL, keep_mask=keep, gradient_mask=True, steps=10, scheduler="ddim")
    change = [(latents - ORIGINAL)[..., left : left + 2].abs().mean().item() for left in (0, 2, 4, 6)]
    assert change[0] > change[1] > change[2] > change[3] == 0


class TestInpaintingModel:
    """A UNet of nine channels: latents, mask, masked latents."""

    @pytest.fixture
    def unet(self) -> Any:
        return make_unet(in_channels=9)

    @pytest.fixture
    def inputs(self, unet: Any) -> list[torch.Tensor]:
        """Collect what the UNet is given."""
        unet_inputs: list[torch.Tensor] = []
        unet.conv_in.register_forward_pre_hook(lambda _, inputs: unet_inputs.append(inputs[0]))
        return unet_inputs

    def test_unet_gets_the_mask_and_the_masked_latents(self, unet: Any, inputs: list[torch.Tensor], denoise: Denoise):
        keep = keep_right()
        denoise(unet=unet, latents=ORIGINAL, keep_mask=keep)
        first = inputs[0]
        assert first.shape == (2, 9, 8, 8)
        for row in first:
            assert torch.equal(row[4:5], (1 - keep)[0])
            assert torch.equal(row[5:, :, 4:], ORIGINAL[0, :, :, 4:])
            assert not row[5:, :, :4].any()
        denoise(unet=unet, latents=ORIGINAL, keep_mask=keep, masked_latents=ORIGINAL * 2)
        assert torch.equal(inputs[-1][0, 5:], ORIGINAL[0] * 2)

    def test_without_a_mask_everything_changes(self, unet: Any, inputs: list[torch.Tensor], denoise: Denoise):
        assert denoise(unet=unet).isfinite().all()
        assert (inputs[0][:, 4] == 1).all()
        assert not inputs[0][:, 5:].any()

    @pytest.mark.parametrize("gradient", [False, True])
    def test_the_original_is_restored_only_after_the_loop(
        self, unet: Any, inputs: list[torch.Tensor], denoise: Denoise, gradient: bool
    ):
        states: list[Any] = []
        changes = {"scheduler": "ddim", "latents": ORIGINAL, "keep_mask": keep_right(), "gradient_mask": gradient}
        result = denoise(states, unet=unet, **changes)
        for state, unet_input in zip(states, inputs, strict=False):
            assert torch.equal(unet_input[:1, :4], state.latents), "as the sampler left them"
        last = states[-1].latents
        assert not torch.allclose(last[..., 4:], ORIGINAL[..., 4:], atol=1e-2)
        assert torch.equal(result[..., 4:], ORIGINAL[..., 4:])
        assert torch.equal(result[..., :4], last[..., :4])

    def test_each_batch_row_has_its_own_mask(self, unet: Any, denoise: Denoise):
        rows = [(noise_of(seed), noise_of(seed + 10), noise_of(seed + 20, 1, 1, 8, 8).clamp(0, 1)) for seed in (1, 2)]
        noise, latents, keep = (torch.cat(tensors) for tensors in zip(*rows, strict=True))
        together = denoise(unet=unet, noise=noise, latents=latents, keep_mask=keep, seeds=(0, 0))
        for row, (own_noise, own_latents, own_keep) in enumerate(rows):
            alone = denoise(unet=unet, noise=own_noise, latents=own_latents, keep_mask=own_keep)
            assert torch.allclose(together[row : row + 1], alone, atol=1e-4)
