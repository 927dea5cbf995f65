"""Schedules of discrete noise levels: diffusers' samplers as the reference configures and starts them, and the ER-SDE solver."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DEISMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler

from invokeclone.engine import denoise
from invokeclone.engine.schedules import discrete, er_sde
from invokeclone.engine.schedules.discrete import DiscreteSchedule
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES

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
PUBLISHED = PNDMScheduler.from_config(SD1).config
"""Stable Diffusion 1.5's: its class defaults to the spacing "leading", the file states none."""
SDXL = EulerDiscreteScheduler.from_config({**SD1, "timestep_spacing": "leading"}).config
KARRAS = [name for name in discrete.NAMES if name.endswith("_k")]
WITHOUT_KARRAS = ["ddim", "ddpm", "pndm", "euler_a", "lcm", "tcd"]
"""Samplers whose class does not know Karras' sigmas."""


def plan(name: str, steps: int = 10, config: Mapping[str, Any] = SD1, **parts: Any) -> DiscreteSchedule:
    return discrete.plan(
        discrete.create(name, config, seeds=parts.get("seeds", (0,))), steps, CPU, **{"seeds": (0,), **parts}
    )


def alpha(timestep: float) -> float:
    """Return the signal's share of the variance at a timestep, by the formula of the training schedule."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    product = torch.cumprod(1 - betas, 0)
    low, high = product[int(timestep)], product[min(int(timestep) + 1, 999)]
    return float(low + (high - low) * (timestep - int(timestep)))


def sigma(timestep: float) -> float:
    return ((1 - alpha(timestep)) / alpha(timestep)) ** 0.5


def signal_and_noise(timestep: torch.Tensor) -> tuple[float, float]:
    signal = alpha(float(timestep))
    return signal**0.5, (1 - signal) ** 0.5


def noise_of(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape or (1, 4, 8, 8), generator=torch.Generator().manual_seed(seed))


def denoise_towards(name: str, target: torch.Tensor, config: dict, steps: int = 12) -> torch.Tensor:
    """Run a sampler with a model that knows the answer."""
    schedule = plan(name, steps, config)
    current: list[torch.Tensor] = []

    def predict(scaled: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        sample = current[-1]
        signal, noise = signal_and_noise(timestep)
        is_scaled_by_sigma = hasattr(schedule.sampler, "is_scale_input_called")
        vp = scaled if is_scaled_by_sigma else sample
        epsilon = (vp - signal * target) / noise
        return epsilon if config["prediction_type"] == "epsilon" else signal * epsilon - noise * target

    begun = schedule.start(None, noise_of(0, *target.shape))
    current.append(begun)
    return denoise.run(schedule, begun, predict, lambda state: current.append(state.latents))


def test_names_match_the_api():
    assert set(discrete.NAMES) == set(get_args(SCHEDULER_NAME_VALUES))


@pytest.mark.filterwarnings("ignore:Should have ta>=t0:UserWarning")  # torchsde, about rounding
@pytest.mark.parametrize("config", [SD1, EMBEDDED], ids=["epsilon", "v_trailing"])
@pytest.mark.parametrize("name", discrete.NAMES)
def test_every_scheduler_reaches_the_latents_that_the_model_predicts(name: str, config: dict):
    target = torch.linspace(-1, 1, 4 * 8 * 8).reshape(1, 4, 8, 8)
    result = denoise_towards(name, target, config)
    again = denoise_towards(name, target, config)
    assert torch.equal(result, again), "the same seed must give the same latents"
    loose = name.startswith("kdpm_2_a")  # its timesteps lie between those that the noise levels belong to
    assert (result - target).abs().max() < (0.7 if loose else 0.15)


def noise_left(name: str, config: Mapping[str, Any], start: float, steps: int = 15) -> float:
    """Return how far a run ends from a smooth image when the model knows data spread narrowly around it."""
    spread = 0.05
    smooth = torch.linspace(-1, 1, 32).repeat(1, 4, 32, 1)
    schedule = plan(name, steps, config, start=start)
    latents = schedule.start(smooth, noise_of(5, *smooth.shape))
    for index, timestep in enumerate(schedule.timesteps):
        signal, noise = signal_and_noise(timestep)
        inputs = schedule.scale_model_input(latents, index)
        epsilon = noise * (inputs - signal * smooth) / (signal**2 * spread**2 + noise**2)
        latents, _ = schedule.step(epsilon, latents, index)
    return float((latents - smooth).std())


@pytest.mark.filterwarnings("ignore:Should have t[ab]:UserWarning")  # torchsde, about rounding
@pytest.mark.parametrize("config", [SD1, {**SD1, "skip_prk_steps": False}, SDXL], ids=["sd", "warm up", "sdxl"])
@pytest.mark.parametrize("name", discrete.NAMES)
def test_runs_from_the_middle_are_as_smooth_as_whole_runs(name: str, config: Mapping[str, Any]):
    """Multistep samplers take no more derivatives into account than the run itself has made."""
    limit = 2 * max(noise_left("euler", config, 0.0), noise_left(name, config, 0.0))
    for start in (0.85, 0.5):
        assert noise_left(name, config, start) < limit, start


def test_an_unknown_name_is_refused():
    with pytest.raises(discrete.NoSuchScheduler, match="'best'"):
        discrete.create("best", SD1)


@pytest.mark.parametrize(("name", "steps"), [("pndm", 1), ("pndm", 3), ("lcm", 51), ("tcd", 51), ("ddim", 1001)])
def test_unsupported_step_counts_are_refused(name: str, steps: int):
    """PNDM warms up over four steps unless the model's configuration says otherwise; LCM and TCD were trained for 50."""
    with pytest.raises(discrete.StepsNotPossible, match=f"Scheduler cannot run {steps} steps? with .* choose another"):
        plan(name, steps, {**SD1, "skip_prk_steps": False})


@pytest.mark.parametrize("name", ["euler", "heun", "lms", "kdpm_2", "dpmpp_2m", "deis", "unipc", "euler_a"])
@pytest.mark.parametrize(
    "published", [PUBLISHED, DDIMScheduler.from_config(SD1).config, SD1], ids=["pndm", "ddim", "file"]
)
def test_defaults_of_the_configured_class_do_not_leak_to_others(name: str, published: Mapping[str, Any]):
    sampler = discrete.create(name, published)
    assert sampler.config.timestep_spacing == "linspace"
    assert sampler.config.beta_schedule == "scaled_linear"


def test_published_sd_config_gives_euler_evenly_spaced_timesteps():
    assert plan("euler", 10, PUBLISHED).timesteps.tolist() == pytest.approx(np.linspace(999, 0, 10).tolist())
    assert plan("ddim", 10, PUBLISHED).timesteps.tolist() == [901 - 100 * step for step in range(10)]


@pytest.mark.parametrize(
    ("name", "distance"),
    [("euler", 100), ("heun", 100), ("ddim", 100), ("lms", 100), ("dpmpp_2m", 90), ("unipc", 90), ("er_sde", 90)],
)
def test_explicit_timestep_spacing_is_kept(name: str, distance: int):
    schedule = plan(name, 10, SDXL)
    assert schedule.sampler.config.timestep_spacing == "leading"
    assert schedule.timesteps[:: schedule.order].tolist() == [901 - distance * step for step in range(10)]


def test_the_models_own_sampler_settings_are_kept():
    settings = {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "final_sigmas_type": "sigma_min"}
    sampler = discrete.create("dpmpp_2m", {**SD1, **settings, "solver_order": 1, "lower_order_final": False})
    assert {name: sampler.config[name] for name in settings} == settings
    assert not sampler.config.lower_order_final
    assert sampler.config.solver_order == 2, "the name states the order"
    assert discrete.create("unipc", {**SD1, "solver_order": 3}).config.solver_order == 3
    assert discrete.create("euler", {**SD1, "use_exponential_sigmas": True}).config.use_exponential_sigmas
    assert discrete.create("ddim", {**SD1, "rescale_betas_zero_snr": True}).config.rescale_betas_zero_snr
    assert discrete.create("dpmpp_2m_sde", {**SD1, "algorithm_type": "dpmsolver++"}).config.algorithm_type == (
        "sde-dpmsolver++"
    )


@pytest.mark.parametrize("name", sorted(set(discrete.NAMES) - set(WITHOUT_KARRAS) - {"er_sde"}))
def test_karras_sigmas_depend_on_the_name(name: str):
    for configured in (True, False):
        sampler = discrete.create(name, {**SD1, "use_karras_sigmas": configured})
        assert sampler.config.use_karras_sigmas == (name in KARRAS)


def test_pndm_warm_up_is_skipped_only_if_configured():
    short = plan("pndm", 8, PUBLISHED)
    assert short.sampler.config.skip_prk_steps
    assert len(short.timesteps) == 9
    long = plan("pndm", 8, {key: value for key, value in SD1.items() if key != "skip_prk_steps"})
    assert not long.sampler.config.skip_prk_steps
    assert len(long.timesteps) == 17


@pytest.mark.parametrize("name", ["ddim", "ddpm", "lcm", "tcd"])
def test_samples_are_never_clipped(name: str):
    assert not discrete.create(name, {**SD1, "clip_sample": True}).config.clip_sample


@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_timesteps_are_offset_by_one(name: str):
    config = {**SD1, "timestep_spacing": "leading", "steps_offset": 0}
    assert plan(name, 10, config).timesteps.tolist() == [901 - 100 * step for step in range(10)]


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2s_k", "dpmpp_3m"])
def test_deis_configs_use_dpm_solver(name: str):
    config = DEISMultistepScheduler.from_config({**SD1, "algorithm_type": "deis"}).config
    assert discrete.create(name, config).config.algorithm_type == "dpmsolver++"


def test_prediction_type_overrides_the_config():
    assert discrete.create("euler", PUBLISHED).config.prediction_type == "epsilon"
    assert discrete.create("euler", PUBLISHED, prediction_type="v_prediction").config.prediction_type == "v_prediction"


def test_the_brownian_tree_uses_the_run_seed():
    assert discrete.create("dpmpp_sde", SD1, seeds=(77,)).config.noise_sampler_seed == 77
    assert discrete.create("dpmpp_sde_k", SD1, seeds=(77, 78)).config.noise_sampler_seed == [77, 78]


def test_tcd_uses_eta_one():
    assert plan("tcd", 4).step_arguments["eta"] == 1.0
    assert "eta" not in plan("ddim", 4).step_arguments


def test_step_noise_has_its_own_seed():
    assert plan("euler_a", 4, seeds=(7,)).step_arguments["generator"].initial_seed() == 7 ^ 0xFFFFFFFF
    rows = plan("euler_a", 4, seeds=(7, 2**32 - 1)).step_arguments["generator"]
    assert [row.initial_seed() for row in rows] == [7 ^ 0xFFFFFFFF, 0]


def test_step_noise_is_drawn_on_the_compute_device(monkeypatch: pytest.MonkeyPatch):
    class Sampler:
        order = 1
        config = SimpleNamespace(num_train_timesteps=1000)

        def set_timesteps(self, steps: int, device: torch.device) -> None:
            self.device = device
            self.timesteps = torch.arange(steps)

        def step(self, generator: torch.Generator) -> None:
            """Have a generator."""

    class Generator:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def manual_seed(self, _seed: int) -> "Generator":
            return self

    monkeypatch.setattr(torch, "Generator", Generator)
    sampler = Sampler()
    schedule = discrete.plan(sampler, 3, torch.device("cuda"))
    assert schedule.step_arguments["generator"].device == sampler.device == torch.device("cuda")


@pytest.mark.parametrize(
    "name",
    ["ddim", "ddpm", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2s", "euler", "euler_a", "kdpm_2_a", "lcm", "tcd", "er_sde"],
)
def test_samplers_that_take_a_generator(name: str):
    assert "generator" in plan(name, 4).step_arguments


@pytest.mark.parametrize("name", ["deis", "heun", "kdpm_2", "lms", "pndm", "unipc", "dpmpp_sde"])
def test_samplers_without_a_generator(name: str):
    assert plan(name, 4).step_arguments == {}


@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "dpmpp_2m", "kdpm_2"])
def test_timestep_slices_are_contiguous(name: str):
    def slice_of(start: float, end: float) -> list[float]:
        return plan(name, start=start, end=end).timesteps.tolist()

    whole, first, second = slice_of(0, 1), slice_of(0, 0.4), slice_of(0.4, 1)
    assert first + second == whole
    assert first
    assert second
    assert slice_of(0.5, 0.5) == []
    assert slice_of(1, 1) == []


@pytest.mark.parametrize(
    ("start", "end", "timesteps"),
    [
        (0.0, 1.0, [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]),
        (0.199, 0.5, [701, 601, 501]),
        (0.3, 0.8985, [601, 501, 401, 301, 201]),
        (0.999, 1.0, []),
    ],
)
def test_a_slice_is_cut_at_timesteps(start: float, end: float, timesteps: list[int]):
    assert plan("ddim", start=start, end=end).timesteps.tolist() == timesteps


class TestStart:
    """What a run begins with: the sampler adds noise for the first timestep, also at the very first one."""

    def test_noise_alone(self):
        noise = noise_of(1)
        for name, config in (("ddim", PUBLISHED), ("ddpm", PUBLISHED), ("dpmpp_2m", SDXL)):
            schedule = plan(name, config=config)
            expected = (1 - alpha(float(schedule.timesteps[0]))) ** 0.5 * noise
            assert torch.allclose(schedule.start(None, noise), expected, atol=1e-5)
        schedule = plan("euler", config=SDXL)
        assert torch.allclose(schedule.start(None, noise), sigma(901) * noise, atol=1e-3)
        assert float(schedule.sampler.init_noise_sigma) == pytest.approx((sigma(901) ** 2 + 1) ** 0.5, abs=1e-3)

    @pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "pndm"])
    def test_latents_with_noise(self, name: str):
        latents, noise = noise_of(1), noise_of(2)
        schedule = plan(name, config=SDXL)
        signal = alpha(float(schedule.timesteps[0]))
        expected = signal**0.5 * latents + (1 - signal) ** 0.5 * noise
        assert torch.allclose(schedule.start(latents, noise), expected, atol=1e-5)

    def test_latents_with_noise_in_the_middle(self):
        latents, noise = noise_of(1), noise_of(2)
        schedule = plan("euler", config=SDXL, start=0.5)
        assert schedule.timesteps[0] == 401
        assert torch.allclose(schedule.start(latents, noise), latents + sigma(401) * noise, atol=1e-4)

    def test_latents_alone_are_unchanged(self):
        latents = noise_of(1)
        assert plan("euler").start(latents, None) is latents

    def test_an_empty_slice_adds_noise(self):
        latents, noise = noise_of(1), noise_of(2)
        schedule = plan("ddim", start=0.5, end=0.5)
        assert len(schedule.timesteps) == 0
        begun = schedule.start(latents, noise)
        assert torch.allclose(begun, alpha(401) ** 0.5 * latents + (1 - alpha(401)) ** 0.5 * noise, atol=1e-5)
        states: list[object] = []
        assert denoise.run(schedule, begun, lambda *_: pytest.fail("called"), states.append) is begun
        assert not states

    def test_a_run_that_starts_at_its_end_changes_nothing(self):
        latents = noise_of(1)
        schedule = plan("euler", start=1.0)
        begun = schedule.start(latents, noise_of(2))
        assert begun is latents
        assert denoise.run(schedule, begun, lambda *_: pytest.fail("called"), lambda _: None) is latents

    def test_missing_latents_and_noise_are_refused(self):
        with pytest.raises(ValueError, match="latents or noise"):
            plan("euler").start(None, None)

    def test_rows_of_a_batch_are_independent(self):
        latents, noise = noise_of(1, 2, 4, 4, 4), noise_of(2, 2, 4, 4, 4)
        begun = plan("dpmpp_2m").start(latents, noise)
        for row in range(2):
            alone = plan("dpmpp_2m").start(latents[row : row + 1], noise[row : row + 1])
            assert torch.equal(begun[row : row + 1], alone)


class TestERSDE:
    def test_samples_have_the_variance_of_the_data(self):
        """Of data with a normal distribution the exact prediction is known; samples must have its spread, at any order."""
        spread = 0.6
        errors = {}
        for order in (1, 3):
            sampler = discrete.create("er_sde", SD1)
            sampler.register_to_config(solver_order=order)
            schedule = discrete.plan(sampler, 40, CPU)

            def predict(scaled: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
                signal, noise = signal_and_noise(timestep)
                original = signal * spread**2 / (signal**2 * spread**2 + noise**2) * scaled
                return (scaled - signal * original) / noise

            samples = denoise.run(schedule, noise_of(1, 1, 1, 256, 256), predict, lambda _: None)
            errors[order] = abs(float(samples.std()) - spread)
        assert errors[3] < 0.02
        assert errors[3] < errors[1] / 1.5

    def test_integrals_are_left_riemann_sums_of_a_hundred_steps(self):
        def scale(ratio: float) -> float:
            return ratio * (np.exp(ratio**0.3) + 10)

        low, high = 0.5, 2.0
        width = (high - low) / 100
        points = [low + index * width for index in range(100)]
        expected = (
            sum(width / scale(point) for point in points),
            sum(width * (point - high) / scale(point) for point in points),
        )
        assert er_sde.integrals(low, high) == pytest.approx(expected, rel=1e-9)

    def test_three_steps_match_a_manual_computation(self):
        """The formulas of the paper, order 1, 2 and 3, against the solver."""
        schedule = plan("er_sde", 4, SD1, seeds=(3,))
        ratios = [float(value) for value in schedule.sampler.sigmas]
        generator = torch.Generator().manual_seed(3 ^ 0xFFFFFFFF)
        x = noise_of(1, 1, 2, 3, 3)
        originals: list[torch.Tensor] = []
        for index in range(3):
            prediction = noise_of(10 + index, 1, 2, 3, 3)
            after = schedule.step(prediction, x, index)
            now, then = ratios[index], ratios[index + 1]
            a, b = (1 / (1 + ratio**2) ** 0.5 for ratio in (now, then))
            originals.append((x - now * a * prediction) / a)
            f, g = (ratio * (np.exp(ratio**0.3) + 10) for ratio in (now, then))
            r = g / f
            drawn = torch.randn(x.shape, generator=generator)
            expected = b / a * r * x + b * (1 - r) * originals[-1]
            expected += b * max(0.0, then**2 - now**2 * r**2) ** 0.5 * drawn
            first, second = er_sde.integrals(then, now)
            if index >= 1:
                slope = (originals[-1] - originals[-2]) / (now - ratios[index - 1])
                expected += b * (then - now + g * first) * slope
            if index >= 2:
                before = (originals[-2] - originals[-3]) / (ratios[index - 1] - ratios[index - 2])
                curve = 2 * (slope - before) / (now - ratios[index - 2])
                expected += b * ((then - now) ** 2 / 2 + g * second) * curve
            assert torch.allclose(after.latents, expected, atol=1e-4)
            x = after.latents
