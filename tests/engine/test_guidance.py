"""Classifier-free guidance around a denoiser that is a formula."""

from dataclasses import dataclass
from typing import Any, Self

import pytest
import torch

from invokeclone.engine.guidance import classifier_free_guidance, scale_at

TIME = torch.tensor(500.0)


@dataclass
class Words:
    """A conditioning: a number for each row."""

    numbers: torch.Tensor

    def concat(self, other: Self) -> Self:
        return type(self)(torch.cat([self.numbers, other.numbers]))


class Denoiser:
    """Predicts sin(latents + number) and keeps the rows of each call."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, words: Words) -> torch.Tensor:
        self.calls.append(words.numbers.tolist())
        return torch.sin(latents + words.numbers.reshape(-1, 1, 1, 1)) * timestep / 500


POSITIVE, NEGATIVE = Words(torch.tensor([1.0])), Words(torch.tensor([2.0]))
LATENTS = torch.randn((1, 4, 3, 3), generator=torch.Generator().manual_seed(0))
CONDITIONED, UNCONDITIONED = torch.sin(LATENTS + 1.0), torch.sin(LATENTS + 2.0)


@pytest.mark.parametrize("sequential", [False, True])
def test_the_prediction_moves_away_from_the_negative_one(sequential: bool):
    denoiser = Denoiser()
    predict = classifier_free_guidance(denoiser, POSITIVE, NEGATIVE, 7.5, sequential=sequential)
    expected = UNCONDITIONED + 7.5 * (CONDITIONED - UNCONDITIONED)
    assert torch.allclose(predict(LATENTS, TIME, 0), expected, atol=1e-5)
    assert denoiser.calls == ([[2.0], [1.0]] if sequential else [[2.0, 1.0]])


@pytest.mark.parametrize("negative", [NEGATIVE, None])
def test_scale_one_uses_only_the_positive_prompt(negative: Any):
    denoiser = Denoiser()
    predict = classifier_free_guidance(denoiser, POSITIVE, negative, 1.0 if negative else 3.0, rescale=0.7)
    assert torch.equal(predict(LATENTS, TIME, 0), CONDITIONED)
    assert denoiser.calls == [[1.0]]


def test_per_step_scales():
    assert [scale_at([3.0, 2.0], step) for step in range(4)] == [3.0, 2.0, 2.0, 2.0]
    assert scale_at(3.0, 9) == 3.0
    predict = classifier_free_guidance(Denoiser(), POSITIVE, NEGATIVE, [1.0, 4.0])
    assert torch.equal(predict(LATENTS, TIME, 0), CONDITIONED)
    expected = UNCONDITIONED + 4.0 * (CONDITIONED - UNCONDITIONED)
    assert torch.allclose(predict(LATENTS, TIME, 1), expected, atol=1e-5)


def test_rescaling_restores_the_std_of_the_positive_prediction():
    guided = UNCONDITIONED + 5.0 * (CONDITIONED - UNCONDITIONED)
    factor = CONDITIONED.std() / guided.std()
    predict = classifier_free_guidance(Denoiser(), POSITIVE, NEGATIVE, 5.0, rescale=0.7)
    expected = 0.7 * guided * factor + 0.3 * guided
    assert torch.allclose(predict(LATENTS, TIME, 0), expected, atol=1e-5)


@pytest.mark.parametrize("sequential", [False, True])
def test_batch_rows_are_guided_independently(sequential: bool):
    positive, negative = Words(torch.tensor([1.0, -0.5])), Words(torch.tensor([2.0, 0.3]))
    latents = torch.cat([LATENTS, LATENTS.flip(-1) * 2])
    settings = {"rescale": 0.7, "sequential": sequential}
    batched = classifier_free_guidance(Denoiser(), positive, negative, 5.0, **settings)(latents, TIME, 0)
    for row in range(2):
        words = (Words(side.numbers[row : row + 1]) for side in (positive, negative))
        alone = classifier_free_guidance(Denoiser(), *words, 5.0, **settings)(latents[row : row + 1], TIME, 0)
        assert torch.allclose(batched[row : row + 1], alone, atol=1e-6)
