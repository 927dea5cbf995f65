"""Scheduler names, slices of timesteps, and the ER-SDE solver."""

from typing import get_args

import pytest
import torch

from invokeclone.engine import diffusion, er_sde, samplers
from invokeclone.graph.scheduler_names import SCHEDULER_NAME_VALUES

CPU = torch.device("cpu")
SD1 = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "prediction_type": "epsilon",
}
EMBEDDED = {**SD1, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}


def signal_and_noise(timestep: torch.Tensor) -> tuple[float, float]:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    product = torch.cumprod(1 - betas, 0)
    where = float(timestep)
    low, high = product[int(where)], product[min(int(where) + 1, 999)]
    kept = float(low + (high - low) * (where - int(where)))
    return kept**0.5, (1 - kept) ** 0.5


def denoise_towards(name: str, target: torch.Tensor, config: dict, steps: int = 12, **plan: float) -> torch.Tensor:
    """Run a scheduler with a model that knows the answer."""
    schedule = samplers.plan(samplers.create(name, config), steps, CPU, **plan)
    current: list[torch.Tensor] = []

    def predict(scaled: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        sample = current[-1]
        signal, noise = signal_and_noise(timestep)
        is_scaled_by_sigma = hasattr(schedule.scheduler, "is_scale_input_called")
        vp = scaled if is_scaled_by_sigma else sample
        epsilon = (vp - signal * target) / noise
        return epsilon if config["prediction_type"] == "epsilon" else signal * epsilon - noise * target

    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    begun = diffusion.start(schedule, None, noise)
    current.append(begun)
    return diffusion.run(schedule, begun, predict, lambda state: current.append(state.latents))


def test_the_names_are_those_of_the_api():
    assert set(samplers.NAMES) == set(get_args(SCHEDULER_NAME_VALUES))


@pytest.mark.filterwarnings("ignore:Should have ta>=t0:UserWarning")  # torchsde, about rounding
@pytest.mark.parametrize("config", [SD1, EMBEDDED], ids=["epsilon", "v_trailing"])
@pytest.mark.parametrize("name", samplers.NAMES)
def test_every_scheduler_finds_what_the_model_knows(name: str, config: dict):
    target = torch.linspace(-1, 1, 4 * 8 * 8).reshape(1, 4, 8, 8)
    found = denoise_towards(name, target, config)
    again = denoise_towards(name, target, config)
    assert torch.equal(found, again), "the same seed must give the same latents"
    loose = name.startswith("kdpm_2_a")  # its timesteps lie between those that the noise levels belong to
    assert (found - target).abs().max() < (0.7 if loose else 0.15)


def test_an_unknown_name_is_refused():
    with pytest.raises(samplers.NoSuchScheduler, match="'best'"):
        samplers.create("best", SD1)


def test_the_models_own_sampler_settings_do_not_leak():
    config = {**SD1, "use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++", "solver_order": 1}
    scheduler = samplers.create("dpmpp_2m", config)
    assert scheduler.config.algorithm_type == "dpmsolver++"
    assert not scheduler.config.use_karras_sigmas
    assert scheduler.config.solver_order == 2


@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "dpmpp_2m", "kdpm_2"])
def test_slices_of_the_timesteps_fit_each_other(name: str):
    def slice_of(start: float, end: float) -> list[float]:
        return samplers.plan(samplers.create(name, SD1), 10, CPU, start=start, end=end).timesteps.tolist()

    whole, first, second = slice_of(0, 1), slice_of(0, 0.4), slice_of(0.4, 1)
    assert first + second == whole
    assert first
    assert second
    assert slice_of(0.5, 0.5) == []
    assert slice_of(1, 1) == []


def test_only_the_whole_schedule_begins_with_pure_noise():
    noise = torch.ones(1, 4, 2, 2)
    whole = samplers.plan(samplers.create("euler", SD1), 10, CPU)
    part = samplers.plan(samplers.create("euler", SD1), 10, CPU, start=0.5)
    assert whole.whole
    assert not part.whole
    assert torch.equal(diffusion.start(whole, None, noise), noise * whole.scheduler.init_noise_sigma)
    assert torch.allclose(diffusion.start(part, None, noise), noise * part.scheduler.sigmas[part.scheduler.begin_index])
    assert diffusion.start(whole, noise, None) is noise
    with pytest.raises(ValueError, match="latents or noise"):
        diffusion.start(whole, None, None)


def test_an_empty_slice_changes_nothing():
    latents = torch.ones(1, 4, 2, 2)
    schedule = samplers.plan(samplers.create("euler", SD1), 10, CPU, start=1.0)
    states: list[object] = []
    begun = diffusion.start(schedule, latents, torch.zeros_like(latents))
    assert diffusion.run(schedule, begun, lambda *_: pytest.fail("called"), states.append) is latents
    assert not states


def test_the_steps_are_told_with_the_beginning():
    target = torch.zeros(1, 4, 8, 8)
    schedule = samplers.plan(samplers.create("ddim", SD1), 4, CPU)
    states = []
    diffusion.run(schedule, target, lambda scaled, *_: torch.zeros_like(scaled), states.append)
    assert [(s.step, s.order, s.total_steps) for s in states] == [(n, 1, 4) for n in range(5)]
    assert [s.timestep for s in states[1:]] == schedule.timesteps.tolist()


def test_noise_of_stochastic_schedulers_is_not_the_initial_noise():
    schedule = samplers.plan(samplers.create("euler_a", SD1), 4, CPU, seed=7)
    drawn = torch.randn(4, generator=schedule.step_arguments["generator"])
    assert not torch.equal(drawn, torch.randn(4, generator=torch.Generator().manual_seed(7)))


def test_er_sde_keeps_the_spread_of_what_it_samples():
    """Of data with a normal distribution the exact prediction is known; samples must have its spread, at any order."""
    spread = 0.6
    errors = {}
    for order in (1, 3):
        scheduler = samplers.create("er_sde", SD1)
        scheduler.register_to_config(solver_order=order)
        schedule = samplers.plan(scheduler, 40, CPU)
        current = [torch.randn((1, 1, 256, 256), generator=torch.Generator().manual_seed(1))]

        def predict(scaled: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
            signal, noise = signal_and_noise(timestep)
            original = signal * spread**2 / (signal**2 * spread**2 + noise**2) * scaled
            return (scaled - signal * original) / noise

        found = diffusion.run(schedule, current[0], predict, lambda _: None)
        errors[order] = abs(float(found.std()) - spread)
    assert errors[3] < 0.02
    assert errors[3] < errors[1] / 1.5


def test_er_sde_integrals():
    fine = torch.linspace(0.5, 2.0, 200_001, dtype=torch.float64).numpy()
    step = fine[1] - fine[0]
    expected = (1 / er_sde.noise_scale(fine)).sum() * step, ((fine - 2.0) / er_sde.noise_scale(fine)).sum() * step
    assert er_sde.integrals(0.5, 2.0) == pytest.approx(expected, rel=1e-3)
