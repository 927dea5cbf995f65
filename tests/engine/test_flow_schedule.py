"""Schedules of flow matching against diffusers' scheduler, and the parts of them that a run may take."""

import copy

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from invokeclone.engine import denoise
from invokeclone.engine.schedules import flow, flow_solvers

CPU = torch.device("cpu")


def noise_of(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape or (1, 4, 6, 6), generator=torch.Generator().manual_seed(seed))


def velocity(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
    """Return what a model might predict."""
    return torch.sin(latents * 3) + timestep / 1000 + step


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_steps_match_diffusers(factor: float):
    levels = flow.shift_levels(flow.even_levels(5), factor)
    schedule = flow.flow_schedule(levels, CPU)
    reference = FlowMatchEulerDiscreteScheduler(shift=1.0)
    reference.set_timesteps(sigmas=levels[:-1])
    assert torch.allclose(schedule.levels, reference.sigmas)
    assert torch.allclose(schedule.timesteps, reference.timesteps)
    expected = begun = schedule.start(None, noise_of(1))
    for step, timestep in enumerate(reference.timesteps):
        expected = reference.step(velocity(expected, timestep, step), timestep, expected).prev_sample
    assert torch.allclose(denoise.run(schedule, begun, velocity, lambda _: None), expected, atol=1e-5)


def test_steps_in_half_precision_are_rounded_as_in_diffusers():
    """The length of a step and the change are rounded before it is added."""
    schedule = flow.flow_schedule(flow.even_levels(5), CPU, rounds_length=True)
    reference = FlowMatchEulerDiscreteScheduler(shift=1.0)
    reference.set_timesteps(sigmas=flow.even_levels(5)[:-1])
    latents = noise_of(1, 1, 4, 40, 40).bfloat16()
    for index, timestep in enumerate(reference.timesteps):
        prediction = velocity(latents, timestep, index).bfloat16()
        expected = reference.step(prediction, timestep, latents).prev_sample
        latents = schedule.step(prediction, latents, index).latents
        assert torch.equal(latents, expected)


def test_the_change_of_a_step_is_rounded_before_it_is_added():
    """As in InvokeAI's own loops (CogView4), whose lengths of steps are plain numbers."""
    schedule = flow.flow_schedule([0.7, 0.33, 0.0], CPU)
    latents, prediction = noise_of(1, 1, 4, 40, 40).bfloat16(), noise_of(2, 1, 4, 40, 40).bfloat16()
    length = float(schedule.levels[1]) - float(schedule.levels[0])
    change = (prediction.float() * length).bfloat16()
    after = schedule.step(prediction, latents, 0).latents
    assert torch.equal(after, (latents.float() + change.float()).bfloat16())
    exact = (latents.float() + prediction.float() * length).bfloat16()
    assert not torch.equal(after, exact)


@pytest.mark.parametrize("kind", ["euler", "heun", "lcm"])
def test_latents_can_keep_their_format_with_predictions_in_float32(kind: str) -> None:
    """As in Z-Image, whose steps are computed in float32; by default the latents get the prediction's format."""
    levels = [0.7, 0.33, 0.0]
    schedules = {
        "euler": flow.flow_schedule(levels, CPU),
        "heun": flow_solvers.heun_flow_schedule(levels, CPU),
        "lcm": flow_solvers.consistency_flow_schedule(levels, CPU, 1),
    }
    latents, prediction = noise_of(1, 1, 4, 8, 8).bfloat16(), noise_of(2, 1, 4, 8, 8)
    changed, kept = copy.deepcopy(schedules[kind]), schedules[kind]
    kept.keeps_format = True
    expected, rounded = changed.step(prediction, latents, 0), kept.step(prediction, latents, 0)
    assert expected.latents.dtype == expected.original.dtype == torch.float32
    assert torch.equal(rounded.latents, expected.latents.bfloat16())
    assert torch.equal(rounded.original, expected.original.bfloat16())


def test_half_precision_is_accumulated_in_float32():
    schedule = flow.flow_schedule([1.0, 0.999, 0.0], CPU)
    latents, prediction = torch.full((1, 1, 1, 1), 100.0).bfloat16(), torch.full((1, 1, 1, 1), -130.0).bfloat16()
    after, original = schedule.step(prediction, latents, 0)
    assert after.dtype == original.dtype == torch.bfloat16
    assert float(after) == float(torch.tensor(100.13).bfloat16())
    assert float(original) == float(torch.tensor(230.0).bfloat16())


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0, 6.0])
def test_shift_by_factor_matches_diffusers(factor: float):
    reference = FlowMatchEulerDiscreteScheduler(shift=factor)
    reference.set_timesteps(sigmas=flow.even_levels(7)[:-1])
    assert flow.shift_levels(flow.even_levels(7), factor) == pytest.approx(reference.sigmas.tolist())


@pytest.mark.parametrize("tokens", range(1, 64))
def test_the_first_level_stays_exactly_one(tokens: int):
    levels = flow.shift_levels(flow.even_levels(4), flow.shift_by_tokens(tokens))
    assert levels[0] == 1.0
    assert flow.clip_levels(levels, 0.0, 1.0) == levels


@pytest.mark.parametrize("tokens", [256, 1024, 2500, 4096])
def test_shift_by_image_size_matches_diffusers(tokens: int):
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    reference = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    reference.set_timesteps(sigmas=flow.even_levels(4)[:-1], mu=calculate_shift(tokens))
    levels = flow.shift_levels(flow.even_levels(4), flow.shift_by_tokens(tokens))
    assert levels == pytest.approx(reference.sigmas.tolist(), rel=1e-5)
    other = {"low": (256, 0.25), "high": (1024, 0.75)}
    reference.set_timesteps(sigmas=flow.even_levels(4)[:-1], mu=calculate_shift(tokens, 256, 1024, 0.25, 0.75))
    levels = flow.shift_levels(flow.even_levels(4), flow.shift_by_tokens(tokens, **other))
    assert levels == pytest.approx(reference.sigmas.tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("start", "end", "levels"),
    [
        (0.0, 1.0, [1.0, 0.75, 0.5, 0.25, 0.0]),
        (0.3, 1.0, [0.7, 0.5, 0.25, 0.0]),
        (0.25, 1.0, [0.75, 0.5, 0.25, 0.0]),
        (0.2, 1.0, [0.8, 0.75, 0.5, 0.25, 0.0]),
        (0.0, 0.6, [1.0, 0.75, 0.5, 0.4]),
        (0.0, 0.5, [1.0, 0.75, 0.5]),
        (0.3, 0.4, [0.7, 0.6]),
        (0.0, 0.1, [1.0, 0.9]),
        (0.4, 0.4, [0.6]),
        (0.5, 0.5, [0.5]),
        (1.0, 1.0, [0.0]),
        (0.0, 0.0, [1.0]),
    ],
)
def test_partial_schedules_start_and_end_at_their_fractions(start: float, end: float, levels: list[float]):
    assert flow.clip_levels(flow.even_levels(4), start, end) == pytest.approx(levels)


def test_partial_shifted_schedules_start_at_their_fraction():
    levels = flow.shift_levels(flow.even_levels(4), 3.0)
    assert levels == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])
    assert flow.clip_levels(levels, 0.2, 1.0) == pytest.approx([0.8, 0.75, 0.5, 0.0])
    assert flow.clip_levels(levels, 0.5, 0.9) == pytest.approx([0.5, 0.1])


def test_two_partial_runs_equal_a_full_run_at_a_level_boundary():
    levels, noise = flow.even_levels(4), noise_of(1)

    def run(part: list[float], begun: torch.Tensor, first_step: int) -> torch.Tensor:
        schedule = flow.flow_schedule(part, CPU)
        return denoise.run(schedule, begun, lambda x, t, step: velocity(x, t, step + first_step), lambda _: None)

    half = run(flow.clip_levels(levels, 0.0, 0.5), noise, 0)
    assert torch.allclose(run(flow.clip_levels(levels, 0.5, 1.0), half, 2), run(levels, noise, 0), atol=1e-5)


class TestStart:
    def test_a_full_run_starts_from_noise(self):
        noise = noise_of(1)
        assert flow.flow_schedule(flow.even_levels(4), CPU).start(None, noise) is noise

    def test_an_image_gets_the_noise_of_the_first_level(self):
        latents, noise = noise_of(1), noise_of(2)
        schedule = flow.flow_schedule([0.7, 0.5, 0.0], CPU)
        assert torch.allclose(schedule.start(latents, noise), 0.7 * noise + 0.3 * latents, atol=1e-6)
        whole = flow.flow_schedule(flow.even_levels(4), CPU)
        assert torch.equal(whole.start(latents, noise), noise)

    def test_a_noisy_image_is_unchanged(self):
        latents = noise_of(1)
        assert flow.flow_schedule([0.7, 0.0], CPU).start(latents, None) is latents

    def test_a_single_level_adds_noise_without_a_model_call(self):
        latents, noise = noise_of(1), noise_of(2)
        schedule = flow.flow_schedule(flow.clip_levels(flow.even_levels(4), 0.4, 0.4), CPU)
        begun = schedule.start(latents, noise)
        assert torch.allclose(begun, 0.6 * noise + 0.4 * latents, atol=1e-6)
        assert denoise.run(schedule, begun, lambda *_: pytest.fail("called"), lambda _: None) is begun

    def test_a_partial_run_requires_latents(self):
        with pytest.raises(ValueError, match="needs latents"):
            flow.flow_schedule([0.7, 0.0], CPU).start(None, noise_of(1))
        with pytest.raises(ValueError, match="latents or noise"):
            flow.flow_schedule([1.0, 0.0], CPU).start(None, None)


def test_the_model_may_be_given_other_times_than_the_levels():
    schedule = flow.flow_schedule([1.0, 0.9, 0.0], CPU, times=[0.8, 0.3])
    assert schedule.timesteps.tolist() == pytest.approx([800, 300])
    timesteps: list[float] = []

    def predict(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        timesteps.append(float(timestep))
        return torch.ones_like(latents)

    result = denoise.run(schedule, torch.zeros(1, 1, 1, 1), predict, lambda _: None)
    assert timesteps == pytest.approx([800, 300])
    assert float(result) == pytest.approx(-1.0), "the steps follow the levels"


class TestMask:
    """Values of a mask are noise levels: a location changes from the call on after which the noise is less than that."""

    LEVELS = (1.0, 0.75, 0.5, 0.25, 0.0)

    def run(self, change: list[float], levels: tuple[float, ...] = LEVELS) -> list[torch.Tensor]:
        """Return the latents after each call, (calls, locations)."""
        self.original, self.noise = noise_of(1, 1, 1, 1, len(change)), noise_of(2, 1, 1, 1, len(change))
        schedule = flow.flow_schedule(list(levels), CPU)
        mask = schedule.mask(torch.tensor(change).reshape(1, 1, 1, -1), self.original, self.noise, gradient=False)
        states: list[torch.Tensor] = []
        begun = schedule.start(self.original, self.noise)
        result = denoise.run(
            schedule, begun, lambda x, *_: torch.full_like(x, 5.0), lambda s: states.append(s.latents), mask
        )
        assert torch.equal(result, states[-1])
        return [state.flatten() for state in states]

    def test_unmasked_areas_are_the_original_noised_to_the_level(self):
        states = self.run([0.0, 1.0])
        for level, state in zip(self.LEVELS, states, strict=True):
            expected = level * self.noise.flatten() + (1 - level) * self.original.flatten()
            assert torch.allclose(state[0], expected[0], atol=1e-6)
            changed = self.noise.flatten()[1] + (level - 1.0) * 5.0
            assert torch.allclose(state[1], changed, atol=1e-5)
        assert states[-1][0] == self.original.flatten()[0]

    def test_gray_areas_start_changing_later(self):
        states = torch.stack(self.run([0.2, 0.25, 0.3, 0.6, 0.75, 0.8]))
        levels = torch.tensor(self.LEVELS).reshape(-1, 1)
        noisy = levels * self.noise.flatten() + (1 - levels) * self.original.flatten()
        first_change = [
            int((~torch.isclose(states, noisy, atol=1e-5))[:, location].float().argmax()) for location in range(6)
        ]
        # 0.25 and 0.75 equal a level and only join at the next one: a location needs 0.0001 more than the level
        assert first_change == [4, 4, 3, 2, 2, 1]

    def test_a_run_that_ends_early_leaves_unmasked_areas_noisy(self):
        states = self.run([0.0], (0.8, 0.4))
        assert torch.allclose(states[-1], 0.4 * self.noise.flatten() + 0.6 * self.original.flatten(), atol=1e-6)

    def test_each_batch_row_has_its_own_mask(self):
        original, noise = noise_of(1, 2, 1, 2, 2), noise_of(2, 2, 1, 2, 2)
        change = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
        schedule = flow.flow_schedule([1.0, 0.5, 0.0], CPU)
        mask = schedule.mask(change, original, noise, gradient=False)
        result = denoise.run(schedule, noise, lambda x, *_: torch.ones_like(x), lambda _: None, mask)
        assert torch.allclose(result[0], original[0])
        assert torch.allclose(result[1], noise[1] - 1.0, atol=1e-6)
