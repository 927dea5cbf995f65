"""Prompts that hold for a region only: which tokens a location attends to, at each level of the UNet."""

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from invokeclone.families.stable_diffusion.attention import CrossAttention, cross_attention
from invokeclone.families.stable_diffusion.conditioning import BasicConditioningInfo, TextConditioning
from invokeclone.families.stable_diffusion.denoiser import UNetDenoiser
from tests.families.stable_diffusion.conftest import CPU, Denoise, Encode
from tests.tiny_models import noise_of

HIDDEN = -10000.0


def conditioning(*masks: torch.Tensor | None, tokens: int = 2) -> TextConditioning:
    """Return prompts of `tokens` tokens each, with these masks."""
    infos = [BasicConditioningInfo(noise_of(10 + index, 1, tokens, 32)) for index in range(len(masks))]
    return TextConditioning.of_prompts(list(zip(infos, masks, strict=True)))


def scores(text: TextConditioning, size: tuple[int, int], locations: int) -> torch.Tensor:
    return CrossAttention(*size, torch.float32, CPU)._score(text, locations)


def attention_mask(
    text: TextConditioning, size: tuple[int, int], level: tuple[int, int], token: int
) -> list[list[int]]:
    """Return at which locations of a level a token is attended to."""
    score = scores(text, size, level[0] * level[1])[0, :, token]
    assert set(score.tolist()) <= {0.0, HIDDEN}
    return (score == 0).int().reshape(level).tolist()


def dot(row: int, column: int, size: tuple[int, int] = (8, 8)) -> torch.Tensor:
    mask = torch.zeros(1, *size)
    mask[0, row, column] = 1.0
    return mask


class TestLevels:
    def test_full_size_masks_use_nearest_pixels(self):
        mask = torch.zeros(1, 64, 64, dtype=torch.bool)
        mask[0, 16:, :8] = True
        expected = [[0] * 8, [0] * 8, *[[1] + [0] * 7] * 6]
        assert attention_mask(conditioning(mask, None), (8, 8), (8, 8), 0) == expected

    def test_smaller_levels_are_max_pooled(self):
        """A dot off the grid stays at every level; by the nearest pixel it would be lost."""
        text = conditioning(dot(1, 3), None)
        assert attention_mask(text, (8, 8), (4, 4), 0) == [[0, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4]
        assert attention_mask(text, (8, 8), (2, 2), 0) == [[1, 0], [0, 0]]
        assert attention_mask(text, (8, 8), (1, 1), 0) == [[1]]

    def test_odd_sizes_are_halved_rounding_up(self):
        text = conditioning(dot(4, 8, (5, 9)), None)
        assert attention_mask(text, (5, 9), (3, 5), 0) == [[0] * 5, [0] * 5, [0, 0, 0, 0, 1]]
        assert attention_mask(text, (5, 9), (2, 3), 0) == [[0] * 3, [0, 0, 1]]

    def test_unknown_level(self):
        with pytest.raises(ValueError, match="no level of latents of 8 x 8 has 15 locations"):
            scores(conditioning(dot(0, 0)), (8, 8), 15)

    @pytest.mark.parametrize("scale", [1, 255])
    def test_masks_of_any_dtype_are_thresholded_at_one_half(self, scale: int):
        values = torch.tensor([[0.0, 0.5], [0.51, 1.0]])
        assert attention_mask(conditioning(values), (2, 2), (2, 2), 0) == [[0, 0], [1, 1]]
        levels = torch.tensor([[[0, 0], [scale, scale]]], dtype=torch.uint8)
        assert attention_mask(conditioning(levels), (2, 2), (2, 2), 0) == [[0, 0], [1, 1]]


class TestTokens:
    def test_a_prompt_without_a_mask_applies_everywhere(self):
        score = scores(conditioning(dot(0, 0), None), (8, 8), 64)
        assert (score[0, :, 2:] == 0).all()
        assert (score[0, 1:, :2] == HIDDEN).all()

    def test_padding_is_masked_in_each_row(self):
        longer = conditioning(None, None, None)
        joined = conditioning(dot(0, 0)).concat(longer)
        score = scores(joined, (8, 8), 64)
        assert score.shape == (2, 64, 6)
        assert (score[0, :, 2:] == HIDDEN).all()
        assert (score[1] == 0).all(), "a row without regions attends to all of its tokens"


def test_unet_attention_matches_a_manual_computation(sd1_parts: dict[str, Any]):
    """All cross-attention of the tiny UNet is at half the latents' size, so one matrix of scores serves it."""
    unet, latents, timestep = sd1_parts["unet"], noise_of(1), torch.tensor(500)
    text = conditioning(dot(1, 3), 1 - dot(1, 3), tokens=4)
    by_hand = torch.zeros(1, 16, 8)
    by_hand[0, :, :4] = HIDDEN
    by_hand[0, 1, :4] = 0.0  # the dot of (1, 3) is in location (0, 1), where the other region is too

    class ByHand(AttnProcessor2_0):
        def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, **_: Any) -> Any:
            return super().__call__(attn, hidden_states, encoder_hidden_states, by_hand)

    before = dict(unet.attn_processors)
    with torch.inference_mode():
        unet.set_attn_processor({n: ByHand() if ".attn2." in n else p for n, p in before.items()})
        try:
            expected = unet(latents, timestep, encoder_hidden_states=text.embeds).sample
        finally:
            unet.set_attn_processor(dict(before))
        attention = CrossAttention(8, 8, torch.float32, CPU)
        with cross_attention(unet, attention):
            result = UNetDenoiser(unet, attention=attention)(latents, timestep, text)
        assert unet.attn_processors == before
        plain = UNetDenoiser(unet)(latents, timestep, text)
    assert torch.allclose(result, expected, atol=1e-6)
    assert not torch.allclose(result, plain, atol=1e-4)


class TestDenoising:
    @pytest.fixture
    def left(self) -> torch.Tensor:
        mask = torch.zeros(1, 64, 64, dtype=torch.bool)
        mask[..., :32] = True
        return mask

    def test_a_full_image_region_changes_nothing(self, denoise: Denoise, encode: Encode, left: torch.Tensor):
        info = BasicConditioningInfo(encode("a red circle").embeds)
        whole = denoise()
        everywhere = TextConditioning.of_prompts([(info, torch.ones_like(left))])
        assert torch.allclose(denoise(positive=everywhere), whole, atol=1e-4)
        nowhere = TextConditioning.of_prompts([(info, torch.zeros_like(left))])
        # equal offsets of all scores cancel out, but for rounding
        assert torch.allclose(denoise(positive=nowhere), whole, atol=1e-2)

    def test_two_regions(self, denoise: Denoise, encode: Encode, left: torch.Tensor):
        whole = denoise()
        prompts = [BasicConditioningInfo(encode(prompt).embeds * 2) for prompt in ("a red circle", "a dog")]
        regional = TextConditioning.of_prompts([(prompts[0], left), (prompts[1], ~left)])
        for side in ("positive", "negative"):
            mixed = denoise(**{side: regional})
            assert mixed.isfinite().all()
            assert not torch.allclose(mixed, whole, atol=1e-3)
            assert torch.allclose(mixed, denoise(**{side: regional}, sequential=True), atol=1e-4)
        assert torch.equal(denoise(), whole), "the attention is as it was"
