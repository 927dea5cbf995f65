"""Several images in one call: each row is what a run of its own gives."""

from typing import Any

import pytest
import torch

from invokeclone.families.stable_diffusion.conditioning import BasicConditioningInfo, TextConditioning
from tests.families.stable_diffusion.conftest import Denoise, Encode
from tests.tiny_models import noise_of

pytestmark = pytest.mark.filterwarnings("ignore:Should have ta>=t0:UserWarning")  # torchsde, about rounding
SAMPLERS = ["euler", "euler_a", "dpmpp_sde", "dpmpp_2m_sde", "lcm", "er_sde"]


@pytest.fixture
def prompts(encode: Encode) -> list[TextConditioning]:
    """Encode two positive and two negative prompts; the second pair is longer than the first."""
    return [encode(p) for p in ("a red circle", '("a cat", "a dog").and()', "", '("ugly", "blue", "old").and()')]


def compare(denoise: Denoise, prompts: list[TextConditioning], rows: list[dict[str, Any]], **settings: Any) -> None:
    """Assert that a run with both prompts, noises and seeds gives the rows that two runs give."""
    first, second, first_negative, second_negative = prompts
    noises = noise_of(1), noise_of(2)
    alone = [
        denoise(positive=p, negative=n, noise=noise, seeds=(seed,), **settings, **row)
        for p, n, noise, seed, row in zip(
            (first, second), (first_negative, second_negative), noises, (11, 12), rows, strict=True
        )
    ]
    together = denoise(
        positive=first.concat(second),
        negative=first_negative.concat(second_negative),
        noise=torch.cat(noises),
        seeds=(11, 12),
        **settings,
        **{name: torch.cat([row[name] for row in rows]) for name in rows[0]},
    )
    assert together.shape == (2, 4, 8, 8)
    for row in range(2):
        assert torch.allclose(together[row : row + 1], alone[row], atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_prompts_seeds_and_noises(name: str, denoise: Denoise, prompts: list[TextConditioning]):
    compare(denoise, prompts, [{}, {}], scheduler=name)


@pytest.mark.parametrize("sequential", [False, True])
def test_rescaled_guidance(sequential: bool, denoise: Denoise, prompts: list[TextConditioning]):
    compare(denoise, prompts, [{}, {}], cfg_rescale=0.7, sequential=sequential)


@pytest.mark.parametrize("name", SAMPLERS)
def test_regions_in_one_row_only(name: str, denoise: Denoise, prompts: list[TextConditioning]):
    left = torch.zeros(1, 64, 64, dtype=torch.bool)
    left[..., :32] = True
    infos = [BasicConditioningInfo(prompts[index].embeds[:, :77] * factor) for index, factor in ((0, 1), (1, 2))]
    regional = TextConditioning.of_prompts([(infos[0], left), (infos[1], ~left)])
    compare(denoise, [regional, *prompts[1:]], [{}, {}], scheduler=name)
    compare(denoise, [prompts[0], regional, *prompts[2:]], [{}, {}], scheduler=name)


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("name", SAMPLERS)
def test_masks(name: str, gradient: bool, denoise: Denoise, prompts: list[TextConditioning]):
    masks = noise_of(3, 1, 1, 8, 8).clamp(0, 1), noise_of(4, 1, 1, 8, 8).clamp(0, 1)
    rows = [{"keep_mask": mask, "latents": noise_of(seed)} for mask, seed in zip(masks, (5, 6), strict=True)]
    compare(denoise, prompts, rows, scheduler=name, gradient_mask=gradient, start=0.2)


def test_one_mask_for_all_rows(denoise: Denoise, prompts: list[TextConditioning]):
    original, keep = noise_of(5, 2, 4, 8, 8), torch.zeros(1, 1, 8, 8)
    keep[..., 4:] = 1.0
    noise = torch.cat([noise_of(1), noise_of(2)])
    result = denoise(latents=original, keep_mask=keep, noise=noise, seeds=(1, 2))
    assert torch.equal(result[..., 4:], original[..., 4:])


def test_one_prompt_for_all_rows(denoise: Denoise):
    noises = noise_of(1), noise_of(2)
    together = denoise(noise=torch.cat(noises), seeds=(1, 2))
    for row in range(2):
        assert torch.allclose(together[row : row + 1], denoise(noise=noises[row]), atol=1e-4)
