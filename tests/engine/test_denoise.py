"""The denoise loop: the order of its parts, what it reports, and masks of samplers."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from invokeclone.engine import denoise
from invokeclone.engine.schedules import discrete
from invokeclone.engine.schedules.discrete import DiscreteSchedule
from invokeclone.engine.schedules.interface import SolverStep
from invokeclone.graph.context import CanceledException
from tests.tiny_models import SCHEDULER

CPU = torch.device("cpu")


def noise_of(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape or (1, 4, 4, 4), generator=torch.Generator().manual_seed(seed))


def plan(name: str, steps: int, **parts: Any) -> DiscreteSchedule:
    return discrete.plan(discrete.create(name, SCHEDULER), steps, CPU, **parts)


@dataclass
class Recorder:
    """A schedule and a mask hook that add to a number; `calls` lists what was called with which number."""

    timesteps: torch.Tensor = field(default_factory=lambda: torch.tensor([900, 500]))
    order: int = 1
    training_steps: int = 1000
    calls: list[tuple[str, float]] = field(default_factory=list)

    def _plus(self, name: str, latents: torch.Tensor, number: float) -> torch.Tensor:
        self.calls.append((name, float(latents)))
        return latents + number

    def scale_model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        return self._plus("scale", latents, 1000)

    def step(self, prediction: torch.Tensor, latents: torch.Tensor, index: int) -> SolverStep:
        return SolverStep(self._plus("step", latents, 1), prediction)

    def before_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        return self._plus("before", latents, 10)

    def after_step(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        return self._plus("after", latents, 100)

    def after_loop(self, latents: torch.Tensor) -> torch.Tensor:
        return self._plus("end", latents, 0.5)

    def preview(self, original: torch.Tensor) -> torch.Tensor:
        return self._plus("preview", original, 0.25)


def test_order_of_calls_in_a_step():
    recorder, states = Recorder(), []
    result = denoise.run(
        recorder, torch.zeros(1), lambda x, *_: recorder._plus("predict", x, 0), states.append, recorder
    )
    first = [("before", 0), ("scale", 10), ("predict", 1010), ("step", 10), ("after", 11), ("preview", 1010)]
    second = [("before", 111), ("scale", 121), ("predict", 1121), ("step", 121), ("after", 122), ("preview", 1121)]
    assert recorder.calls == [*first, *second, ("end", 222)]
    assert float(result) == 222.5
    assert [float(state.latents) for state in states] == [0, 111, 222]
    assert [state.predicted_original and float(state.predicted_original) for state in states] == [
        None,
        1010.25,
        1121.25,
    ]


def test_final_latents_are_masked_without_remaining_steps():
    recorder = Recorder(timesteps=torch.tensor([]))
    assert float(denoise.run(recorder, torch.zeros(1), lambda *_: pytest.fail("called"), pytest.fail, recorder)) == 0.5


def test_progress_is_reported_before_the_first_step_and_after_each():
    schedule = plan("ddim", 4)
    states: list[Any] = []
    denoise.run(schedule, noise_of(0), lambda scaled, *_: torch.zeros_like(scaled), states.append)
    assert [(s.step, s.order, s.total_steps) for s in states] == [(n, 1, 4) for n in range(5)]
    assert states[0].timestep == 1000
    assert [s.timestep for s in states[1:]] == schedule.timesteps.tolist()
    assert states[0].predicted_original is None
    assert all(s.predicted_original is not None for s in states[1:])


def test_second_order_samplers_call_the_model_twice_per_step():
    schedule = plan("heun", 3)
    numbers: list[int] = []
    states: list[Any] = []

    def predict(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        numbers.append(step)
        return latents

    denoise.run(schedule, noise_of(0), predict, states.append)
    assert numbers == [0, 0, 1, 1, 2]
    assert {(state.order, state.total_steps) for state in states} == {(2, 5)}


def test_canceling_stops_at_the_next_step():
    steps: list[int] = []

    def on_step(state: Any) -> None:
        steps.append(state.step)
        if state.step == 2:
            raise CanceledException

    with pytest.raises(CanceledException):
        denoise.run(plan("euler", 50), noise_of(0), lambda x, *_: x, on_step)
    assert steps == [0, 1, 2]


class TestMask:
    """Masks of samplers: 1 where the latents change; the original is put back with the noise of each call."""

    ORIGINAL, NOISE = noise_of(1), noise_of(2)

    def change(self, *columns: float) -> torch.Tensor:
        return torch.tensor(columns, dtype=torch.float32).expand(1, 1, 4, 4)

    @pytest.mark.parametrize("name", ["ddim", "euler", "dpmpp_2m"])
    def test_the_original_is_noised_to_the_timestep_before_each_call(self, name: str):
        schedule = plan(name, 5)
        mask = schedule.mask(self.change(0, 0, 0.25, 1), self.ORIGINAL, self.NOISE, gradient=False)
        latents = noise_of(3)
        for index, timestep in enumerate(schedule.timesteps):
            noisy = schedule.sampler.add_noise(self.ORIGINAL, self.NOISE, timestep.reshape(1))
            masked = mask.before_step(latents, index)
            assert torch.allclose(masked[..., :2], noisy[..., :2], atol=1e-6)
            assert torch.allclose(masked[..., 2], 0.75 * noisy[..., 2] + 0.25 * latents[..., 2], atol=1e-5)
            assert torch.equal(masked[..., 3], latents[..., 3])
            assert mask.after_step(latents, index) is latents

    def test_gradient_mask_values_are_thresholds_on_the_noise_level(self):
        schedule = plan("ddim", 10)  # timesteps 901, 801, …, 1
        mask = schedule.mask(self.change(0, 0.4, 0.95, 1), self.ORIGINAL, self.NOISE, gradient=True)
        latents = torch.full((1, 4, 4, 4), 9.0)
        joined = [
            [bool((mask.before_step(latents, index)[..., c] == 9).all()) for c in range(4)] for index in range(10)
        ]
        assert [row[0] for row in joined] == [False] * 10
        assert [row[1] for row in joined] == [False] * 6 + [True] * 4, "0.4 is less than 0.401"
        assert [row[2] for row in joined] == [True] * 10
        assert [row[3] for row in joined] == [True] * 10

    def test_final_latents_get_the_original_without_noise(self):
        latents, change = noise_of(3), self.change(0, 0.25, 0.75, 1)
        hard = plan("ddim", 5).mask(change, self.ORIGINAL, self.NOISE, gradient=False).after_loop(latents)
        assert torch.allclose(hard, self.ORIGINAL + change * (latents - self.ORIGINAL), atol=1e-6)
        gradient = plan("ddim", 5).mask(change, self.ORIGINAL, self.NOISE, gradient=True).after_loop(latents)
        assert torch.equal(gradient[..., 0], self.ORIGINAL[..., 0])
        assert torch.equal(gradient[..., 1:], latents[..., 1:])

    @pytest.mark.parametrize("end", [1.0, 0.5])
    def test_previews_are_noised_to_the_last_timestep(self, end: float):
        schedule = plan("ddim", 5, end=end)
        mask = schedule.mask(self.change(0, 0, 0, 1), self.ORIGINAL, self.NOISE, gradient=False)
        preview = mask.preview(noise_of(3))
        noisy = schedule.sampler.add_noise(self.ORIGINAL, self.NOISE, torch.tensor([1]))
        assert torch.allclose(preview[..., :3], noisy[..., :3], atol=1e-6)
        assert torch.equal(preview[..., 3], noise_of(3)[..., 3])

    def test_each_batch_row_has_its_own_mask(self):
        original, noise, latents = (noise_of(seed, 2, 4, 4, 4) for seed in (1, 2, 3))
        change = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
        schedule = plan("ddim", 5)
        masked = schedule.mask(change, original, noise, gradient=False).before_step(latents, 2)
        assert torch.allclose(masked[:1], schedule.add_noise(original[:1], noise[:1], 2), atol=1e-6)
        assert torch.equal(masked[1], latents[1])
