"""Control images in a size. The expected values are those of OpenCV 4.11."""

from typing import Any

import numpy as np
import pytest

from invokeclone.components.control.resize import heuristic_resize, interpolate, thin_lines

NUMBERS = (np.arange(24).reshape(4, 6) ** 2 * 3 % 251).astype(np.uint8)
INTERPOLATED = [
    ("nearest", (4, 3), [[0, 3, 27, 48], [108, 147, 243, 49], [181, 5, 173, 15]]),
    ("area", (3, 2), [[65, 119, 71], [121, 131, 102]]),
    ("area", (4, 3), [[31, 51, 70, 72], [122, 118, 149, 86], [160, 132, 113, 110]]),
    ("area", (8, 2), [[54, 68, 84, 102, 135, 77, 64, 94], [200, 95, 75, 141, 121, 111, 103, 98]]),
    (
        "cubic",
        (8, 5),
        [
            [0, 0, 0, 3, 10, 34, 61, 75],
            [66, 100, 137, 161, 197, 99, 55, 105],
            [156, 100, 92, 162, 245, 90, 28, 127],
            [213, 68, 21, 116, 139, 86, 69, 108],
            [231, 120, 121, 195, 67, 160, 178, 70],
        ],
    ),
]


def gray_to_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=-1)


@pytest.mark.parametrize(("method", "size", "expected"), INTERPOLATED)
def test_interpolation_matches_opencv(method: Any, size: tuple[int, int], expected: list[list[int]]) -> None:
    result = interpolate(gray_to_rgb(NUMBERS), size, method).astype(int)
    assert np.abs(result - gray_to_rgb(np.array(expected))).max() <= 1


def test_thinning_matches_opencv() -> None:
    lines = np.zeros((14, 18), dtype=bool)
    lines[2:6, 1:17] = lines[2:13, 8:12] = lines[10:12, 3:6] = True
    expected = np.zeros_like(lines)
    expected[3, 3:15] = expected[4:11, 9] = expected[10, 4] = True
    assert np.array_equal(thin_lines(lines), expected)


def test_border_pixels_are_not_thinned() -> None:
    lines = np.zeros((9, 9), dtype=bool)
    lines[:3] = True
    assert thin_lines(lines)[0].all()


def test_lines_stay_one_pixel_wide_at_any_size() -> None:
    line = np.zeros((60, 80), dtype=np.uint8)
    line[30, 5:75] = 255
    for size in ((160, 120), (50, 45)):
        result = heuristic_resize(gray_to_rgb(line), size)
        assert set(np.unique(result)) == {0, 255}
        assert (result[..., 0] > 0).any(axis=0).mean() > 0.7
        assert (result[..., 0] > 0).sum(axis=0).max() == 1


def test_thick_black_and_white_shapes_are_not_thinned() -> None:
    block = np.zeros((40, 40), dtype=np.uint8)
    block[:, :20] = 255
    result = heuristic_resize(gray_to_rgb(block), (90, 55))
    assert set(np.unique(result)) == {0, 255}
    assert (result > 0).mean() == pytest.approx(0.5, abs=0.05)


def test_only_images_with_many_colors_are_interpolated() -> None:
    three_colors = gray_to_rgb(np.repeat(np.array([[10, 100, 200]], dtype=np.uint8), 20, axis=1).repeat(30, axis=0))
    assert set(np.unique(heuristic_resize(three_colors, (70, 41)))) == {10, 100, 200}
    many = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert np.array_equal(heuristic_resize(many, (20, 20)), interpolate(many, (20, 20), "area"))
    assert np.array_equal(heuristic_resize(many, (60, 50)), interpolate(many, (60, 50), "cubic"))


def test_alpha_is_binarized() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 4), dtype=np.uint8)
    image[..., 3] = np.linspace(0, 255, 20).astype(np.uint8)
    alpha = heuristic_resize(image, (31, 33))[..., 3]
    assert set(np.unique(alpha)) == {0, 255}
    assert (alpha[:, :10] == 0).all()
    assert (alpha[:, -10:] == 255).all()


def test_resizing_large_images_is_deterministic() -> None:
    image = np.random.default_rng(0).integers(0, 2, (400, 400, 1), dtype=np.uint8).repeat(3, axis=2) * 90
    assert np.array_equal(heuristic_resize(image, (64, 64)), heuristic_resize(image.copy(), (64, 64)))
