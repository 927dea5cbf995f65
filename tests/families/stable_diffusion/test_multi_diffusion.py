"""Denoising in tiles: where they lie, how they are blended, and that nothing else changes."""

from typing import Any

import pytest
import torch

from invokeclone.families.stable_diffusion import multi_diffusion
from invokeclone.families.stable_diffusion.conditioning import BasicConditioningInfo, TextConditioning
from invokeclone.families.stable_diffusion.denoiser import Area, UNetCall
from invokeclone.families.stable_diffusion.multi_diffusion import Tiling, weights
from invokeclone.families.stable_diffusion.nodes.tiled_denoise import TiledMultiDiffusionDenoiseLatents
from invokeclone.graph.context import CanceledException
from invokeclone.graph.vocabulary.fields import LatentsField
from tests.fakes_context import FakeContext
from tests.families.stable_diffusion.conftest import CPU, MakeTask, latents_of
from tests.tiny_models import make_unet, noise_of

SMALL = Tiling(8, 8, 4)


def denoise(unet: Any, task: Any, tiling: Tiling, states: list[Any] | None = None) -> torch.Tensor:
    on_step = [].append if states is None else states.append
    return multi_diffusion.denoise(unet, task, tiling, CPU, on_step)


class TestTiles:
    @pytest.mark.parametrize(
        ("length", "expected"), [(8, [0]), (6, [0]), (9, [0, 1]), (12, [0, 4]), (13, [0, 2, 5]), (20, [0, 4, 8, 12])]
    )
    def test_tiles_are_spread_evenly_with_a_minimum_overlap(self, length: int, expected: list[int]):
        areas = SMALL.areas(8, length)
        assert [area.left for area in areas] == expected
        assert {area.right - area.left for area in areas} == {min(8, length)}
        assert areas[-1].right == length
        assert [area.top for area in SMALL.areas(length, 8)] == expected

    def test_tiles_are_ordered_row_by_row(self):
        assert SMALL.areas(12, 12) == [Area(0, 8, 0, 8), Area(0, 8, 4, 12), Area(4, 12, 0, 8), Area(4, 12, 4, 12)]

    def test_tiles_within_their_overlap(self):
        with pytest.raises(ValueError, match="tiles of 64 x 64 pixels must be larger than their overlap of 64"):
            Tiling(8, 8, 8).areas(8, 9)
        assert Tiling(8, 8, 8).areas(8, 8) == [Area(0, 8, 0, 8)], "a single tile overlaps with none"

    @pytest.mark.parametrize("size", [(8, 8), (12, 20), (13, 9)])
    def test_weights_sum_to_one(self, size: tuple[int, int]):
        total, areas = torch.zeros(size), SMALL.areas(*size)
        for area, weight in zip(areas, weights(areas), strict=True):
            total[area.top : area.bottom, area.left : area.right] += weight
        narrow = size == (13, 9)  # there three tiles overlap at once
        assert (total > 0).all()
        assert narrow or torch.allclose(total, torch.ones(size))

    def test_weights_fall_linearly_across_the_overlap(self):
        first, second = weights(Tiling(8, 8, 4).areas(8, 12))
        assert torch.allclose(first[0], torch.tensor([1, 1, 1, 1, 1, 2 / 3, 1 / 3, 0]))
        assert torch.allclose(second[0], first[0].flip(0))


class TestDenoising:
    @pytest.mark.parametrize("scheduler", ["euler", "dpmpp_2m_k", "heun", "euler_a", "dpmpp_2m_sde_k"])
    def test_a_single_tile_is_plain_denoising(self, sd1_parts: dict[str, Any], make_task: MakeTask, scheduler: str):
        from invokeclone.families.stable_diffusion import pipeline

        task = make_task(scheduler=scheduler)
        expected = pipeline.denoise(sd1_parts["unet"], task, CPU, [].append)
        assert torch.equal(denoise(sd1_parts["unet"], task, SMALL), expected)

    def test_a_step_is_the_weighted_mean_of_its_tiles(self, sd1_parts: dict[str, Any], make_task: MakeTask):
        """A single Euler step per tile, done one by one, is put together by hand."""
        unet, noise = sd1_parts["unet"], noise_of(2, 1, 4, 8, 12)
        result = denoise(unet, make_task(noise=noise, steps=1), SMALL)
        left, right = (
            denoise(unet, make_task(noise=part.clone(), steps=1), SMALL) for part in (noise[..., :8], noise[..., 4:])
        )
        ramp = torch.linspace(0, 1, 4)
        middle = left[..., 4:] * ramp.flip(0) + right[..., :4] * ramp
        assert torch.allclose(result, torch.cat([left[..., :4], middle, right[..., 4:]], dim=-1), atol=1e-5)

    @pytest.mark.parametrize("scheduler", ["dpmpp_2m", "euler_a", "heun"])
    def test_large_latents(self, sd1_parts: dict[str, Any], make_task: MakeTask, scheduler: str):
        noise, states = noise_of(2, 1, 4, 12, 20), []
        task = make_task(noise=noise, scheduler=scheduler)
        result = denoise(sd1_parts["unet"], task, SMALL, states)
        assert result.shape == noise.shape
        assert result.isfinite().all()
        assert torch.equal(denoise(sd1_parts["unet"], task, SMALL), result)
        assert [state.step for state in states] == list(range(len(states)))
        assert states[-1].latents.shape == noise.shape

    def test_a_batch_matches_its_single_rows(self, sd1_parts: dict[str, Any], make_task: MakeTask):
        rows = [noise_of(seed, 1, 4, 8, 12) for seed in (2, 3)]
        task = make_task(noise=torch.cat(rows), seeds=(0, 0), scheduler="euler_a")
        single = [denoise(sd1_parts["unet"], make_task(noise=row, scheduler="euler_a"), SMALL) for row in rows]
        assert torch.allclose(denoise(sd1_parts["unet"], task, SMALL), torch.cat(single), atol=1e-4)

    def test_controls_get_the_tile_area(self, sd1_parts: dict[str, Any], make_task: MakeTask):
        calls: list[tuple[Any, Any, int]] = []

        def control(call: UNetCall) -> None:
            calls.append((call.area, call.size, call.index))

        noise = noise_of(2, 1, 4, 8, 12)
        denoise(sd1_parts["unet"], make_task(noise=noise, steps=2, controls=[control]), SMALL)
        areas = [Area(0, 8, 0, 8), Area(0, 8, 4, 12)]
        assert calls == [(area, (8, 12), index) for index in (0, 1) for area in areas]

    def test_without_steps_latents_are_unchanged(self, sd1_parts: dict[str, Any], make_task: MakeTask):
        latents = noise_of(4, 1, 4, 8, 12)
        task = make_task(noise=None, latents=latents, start=1.0)
        assert torch.equal(denoise(sd1_parts["unet"], task, SMALL), latents)

    def test_regional_prompts_and_inpainting_models_are_refused(self, sd1_parts: dict[str, Any], make_task: MakeTask):
        info = BasicConditioningInfo(noise_of(7, 1, 3, 32))
        regional = TextConditioning.of_prompts([(info, torch.ones(1, 64, 64))])
        with pytest.raises(ValueError, match="does not support regional prompts: remove the masks"):
            denoise(sd1_parts["unet"], make_task(negative=regional), SMALL)
        with pytest.raises(ValueError, match="does not support inpainting models: select another"):
            denoise(make_unet(in_channels=9), make_task(), SMALL)


class TestNode:
    @pytest.fixture
    def make_node(self, context: FakeContext, denoise_node: Any) -> Any:
        plain = denoise_node()

        def make(**changes: Any) -> TiledMultiDiffusionDenoiseLatents:
            inputs = {
                "positive_conditioning": plain.positive_conditioning,
                "negative_conditioning": plain.negative_conditioning[0],
                "noise": plain.noise,
                "unet": plain.unet,
                "steps": 2,
                "tile_height": 48,
                "tile_width": 48,
                "tile_overlap": 16,
            }
            return TiledMultiDiffusionDenoiseLatents(**{**inputs, **changes})

        return make

    def test_it_denoises_in_tiles(self, context: FakeContext, make_node: Any, denoise_node: Any):
        whole = latents_of(context, denoise_node(steps=2, cfg_scale=6.0).invoke(context))
        single = latents_of(context, make_node(tile_width=64).invoke(context))
        assert torch.equal(single, whole)
        context.util.steps.clear()
        tiles = make_node().invoke(context)
        assert not torch.allclose(latents_of(context, tiles), whole, atol=1e-3)
        assert (tiles.width, tiles.height, tiles.latents.seed) == (64, 48, None)
        assert [state.step for state in context.util.steps] == [0, 1, 2]

    def test_it_starts_from_latents(self, context: FakeContext, make_node: Any):
        latents = LatentsField(latents_name=context.tensors.save(noise_of(5, 1, 4, 6, 8)), seed=4)
        changed = latents_of(context, make_node(latents=latents, denoising_start=0.5).invoke(context))
        assert not torch.allclose(changed, latents_of(context, make_node().invoke(context)), atol=1e-3)

    def test_it_can_be_canceled(self, context: FakeContext, make_node: Any):
        context.util.cancel_at = 1
        with pytest.raises(CanceledException):
            make_node().invoke(context)
        assert len(context.util.steps) == 2

    def test_the_scale_is_checked(self, make_node: Any):
        with pytest.raises(ValueError, match="cfg_scale must be at least 1"):
            make_node(cfg_scale=[1.0, 0.5])
