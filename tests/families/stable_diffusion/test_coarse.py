"""A network that was trained on small images lays out larger ones at the size that it knows."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler

from invokeclone.families.stable_diffusion.coarse import CoarsePrediction, coarse_prediction

SIDE = 32
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def make(prediction_type: str = "v_prediction") -> CoarsePrediction:
    unet = SimpleNamespace(config={"_trained_side": SIDE})
    made = coarse_prediction(unet, DDIMScheduler(**SCHEDULE, prediction_type=prediction_type))
    assert made is not None
    return made


class Network:
    """Knows the clean latents, one value everywhere, and records its calls."""

    def __init__(self, clean: float, prediction_type: str) -> None:
        self.clean, self.prediction_type = clean, prediction_type
        self.calls: list[tuple[torch.Tensor, float]] = []

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        self.calls.append((latents, float(timestep)))
        level = level_at(float(timestep))
        signal, noise = 1 / math.hypot(1, level), level / math.hypot(1, level)
        clean = torch.full_like(latents, self.clean)
        if self.prediction_type == "sample":
            return clean
        if self.prediction_type == "epsilon":
            return (latents - signal * clean) / noise
        return (signal * latents - clean) / noise


def level_at(timestep: float) -> float:
    """Return noise over signal at a timestep, between two of the training by the logarithm."""
    below = int(timestep)
    signals = DDIMScheduler(**SCHEDULE).alphas_cumprod.double()
    logs = [math.log(math.sqrt((1 - float(s)) / float(s))) for s in signals[below : below + 2]]
    return math.exp(logs[0] + (timestep - below) * (logs[-1] - logs[0]))


def noisy(clean: float, timestep: int, size: tuple[int, int]) -> torch.Tensor:
    level = level_at(timestep)
    noise = torch.randn((2, 4, *size), generator=torch.Generator().manual_seed(1))
    return (clean + level * noise) / math.hypot(1, level)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "epsilon", "sample"])
@pytest.mark.parametrize(("size", "coarse"), [((64, 64), (32, 32)), ((128, 64), (32, 16)), ((50, 33), (25, 17))])
def test_the_network_sees_a_trained_size_at_the_lower_noise_of_the_average(
    prediction_type: str, size: tuple[int, int], coarse: tuple[int, int]
) -> None:
    network = Network(0.7, prediction_type)
    latents = noisy(0.7, 600, size)
    prediction = make(prediction_type)(network, latents, torch.tensor(600))
    ((seen, time),) = network.calls
    assert seen.shape[-2:] == coarse
    factor = math.ceil(max(size) / SIDE)
    assert level_at(time) == pytest.approx(level_at(600) / factor, rel=1e-3)
    level = level_at(time)
    assert float(seen.std()) == pytest.approx(level / math.hypot(1, level), rel=0.15)
    assert float(seen.mean()) == pytest.approx(0.7 / math.hypot(1, level), abs=0.05)
    # The prediction at full size stands for the clean latents.
    expected = Network(0.7, prediction_type)(latents, torch.tensor(600.0))
    assert torch.allclose(prediction, expected, atol=1e-3)


@pytest.mark.parametrize(("size", "timestep"), [((32, 32), 900), ((16, 32), 500), ((64, 64), 5)])
def test_trained_sizes_and_the_last_steps_reach_the_network_unchanged(size: tuple[int, int], timestep: int) -> None:
    network = Network(0.2, "v_prediction")
    latents, time = noisy(0.2, timestep, size), torch.tensor(timestep)
    prediction = make()(network, latents, time)
    ((seen, _),) = network.calls
    assert seen is latents
    assert torch.equal(prediction, Network(0.2, "v_prediction")(latents, time))


def test_pure_noise_stays_pure_noise() -> None:
    network = Network(0.0, "v_prediction")
    make()(network, noisy(0.0, 999, (64, 64)), torch.tensor(999))
    ((seen, time),) = network.calls
    assert time == 999
    assert float(seen.std()) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("config", [{}, {"_trained_side": None}, {"_trained_side": "32"}, {"_trained_side": 0}])
def test_other_networks_are_called_as_they_are(config: dict[str, object]) -> None:
    assert coarse_prediction(SimpleNamespace(config=config), DDIMScheduler(**SCHEDULE)) is None
