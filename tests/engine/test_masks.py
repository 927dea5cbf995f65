"""Gradient masks, by hand: one dimension is enough for the weights, two for the distance."""

from math import exp

import numpy as np
import pytest
import torch
from PIL import Image

from invokeclone.engine import masks
from invokeclone.engine.masks import CoherenceMode


class MaskImage:
    """Stands for an image of which PIL makes the given values when it is reduced to an eighth."""

    mode = "L"

    def __init__(self, levels: list[list[int]]) -> None:
        self.info: dict[str, object] = {}
        self.width, self.height = 8 * len(levels[0]), 8 * len(levels)
        self._reduced = Image.fromarray(np.array(levels, dtype=np.uint8))

    def copy(self) -> "MaskImage":
        return self

    def resize(self, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
        assert (size, resample) == (self._reduced.size, Image.Resampling.BILINEAR)
        return self._reduced


def rows_of(mask: torch.Tensor) -> list[list[int]]:
    """Return a mask's values, 0 to 255, one for each 8 x 8 pixels."""
    assert mask.dtype == torch.float32
    levels = (mask * 255).round().int()[0, 0]
    small = levels[::8, ::8]
    assert torch.equal(levels, small.repeat_interleave(8, 0).repeat_interleave(8, 1)), "enlarged by nearest"
    return small.tolist()


def row(values: list[int], radius: int, mode: CoherenceMode, minimum_denoise: float) -> list[int]:
    """Return the middle row of a mask whose rows are all the same."""
    return rows_of(masks.gradient(MaskImage([values] * 7), radius, mode, minimum_denoise))[3]


def gauss(distance: float, reach: int) -> float:
    return exp(-(distance**2) / (2 * (reach / 2.5) ** 2))


BLACK_LEFT = [0, 255, 255, 255, 255]


def test_box_blur_fades_linearly_to_white_at_its_radius():
    assert row(BLACK_LEFT, 24, "Box Blur", 0.0) == [0, int(255 / 3), int(255 * 2 / 3), 255, 255]


def test_gaussian_blur_fades_with_two_and_a_half_deviations_in_its_radius():
    expected = [0] + [int(255 - 255 * gauss(distance, 3)) for distance in (1, 2, 3)] + [255]
    assert row(BLACK_LEFT, 24, "Gaussian Blur", 0.0) == expected
    assert expected[3] < 255, "at the radius itself something is left"


def test_staged_mode_has_one_level_within_the_gaussian_radius():
    assert row(BLACK_LEFT, 24, "Staged", 0.5) == [0, 127, 127, 127, 255]
    assert row(BLACK_LEFT, 24, "Staged", 0.0) == [0, 255, 255, 255, 255]


@pytest.mark.parametrize("mode", ["Box Blur", "Gaussian Blur"])
def test_no_value_lies_between_the_least_change_and_white(mode: CoherenceMode):
    free = row(BLACK_LEFT, 24, mode, 0.0)
    limited = row(BLACK_LEFT, 24, mode, 0.6)
    threshold = int(0.4 * 255)
    assert limited == [min(value, threshold) if value < 255 else 255 for value in free]
    assert threshold in limited


def test_gray_mask_values_are_respected():
    """Where the mask is gray its own value counts; a black location nearby may make it darker."""
    assert row([255, 255, 55, 255, 255], 16, "Box Blur", 0.0) == [255, 155, 55, 155, 255]
    assert row([200, 200, 200, 200, 200], 16, "Box Blur", 0.0) == [200] * 5
    assert row([200, 200, 200, 200, 200], 16, "Box Blur", 0.5) == [127] * 5
    assert row([0, 150, 255, 255, 255], 16, "Staged", 0.4) == [0, 150, 153, 153, 255]


def test_the_outside_of_the_image_is_not_masked():
    """A location outside weighs nothing, so a white edge stays white."""
    assert row([255, 255, 255, 255, 0], 16, "Box Blur", 0.0) == [255, 255, 255, 127, 0]
    assert row([255], 80, "Gaussian Blur", 0.0) == [255]


def test_distances_are_euclidean():
    levels = [[255] * 5 for _ in range(5)]
    levels[2][2] = 0
    box = rows_of(masks.gradient(MaskImage(levels), 16, "Box Blur", 0.0))
    diagonal = int(255 - 255 * (1 - 2**0.5 / 2))
    assert box == [
        [255, 255, 255, 255, 255],
        [255, diagonal, 127, diagonal, 255],
        [255, 127, 0, 127, 255],
        [255, diagonal, 127, diagonal, 255],
        [255, 255, 255, 255, 255],
    ]
    gaussian = rows_of(masks.gradient(MaskImage(levels), 16, "Gaussian Blur", 0.0))
    assert gaussian[0] == [255, 255, int(255 - 255 * gauss(2, 2)), 255, 255], "nothing beyond the radius"
    staged = rows_of(masks.gradient(MaskImage(levels), 16, "Staged", 1.0))
    assert staged[1] == [255, 0, 0, 0, 255]
    assert staged[0] == [255, 255, 0, 255, 255]


@pytest.mark.parametrize("mode", ["Box Blur", "Gaussian Blur", "Staged"])
def test_without_an_edge_the_mask_is_only_downscaled(mode: CoherenceMode):
    assert row([0, 100, 255, 200, 255], 7, mode, 0.9) == [0, 100, 255, 200, 255]


def test_the_image_is_downscaled_by_pil():
    image = Image.linear_gradient("L").resize((67, 50)).rotate(30)
    reduced = np.asarray(image.resize((8, 6), Image.Resampling.BILINEAR))
    assert rows_of(masks.gradient(image.convert("RGB"), 0, "Box Blur", 0.0)) == reduced.tolist()


def test_sides_are_cut_to_multiples_of_eight():
    mask = masks.gradient(Image.new("RGB", (23, 9), "white"), 16, "Box Blur", 0.0)
    assert mask.shape == (1, 1, 8, 16)
    assert (mask == 1).all()


def test_area_of_change():
    mask = torch.tensor([[0.0, 0.5, 254 / 255, 1.0]]).reshape(1, 1, 1, 4)
    area = masks.area_of_change(mask)
    assert (area.mode, list(area.tobytes())) == ("L", [0, 0, 0, 255])


def test_gray_values_are_rounded_after_they_are_inverted():
    """In bfloat16, 1 - 0.95 is 0.0508, but 0.05 is 0.0500."""
    latents = torch.zeros(1, 4, 2, 2, dtype=torch.bfloat16)
    change = masks.change_mask(torch.full((1, 1, 16, 16), 0.95), latents)
    assert torch.equal(change, torch.full((1, 1, 2, 2), 0.05, dtype=torch.bfloat16))
