"""Nodes that make images for control networks, and lines that stay lines in any size."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from invokeclone.nodes.images import control
from tests.applications import sample_image
from tests.fakes_context import FakeContext


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def run(context: FakeContext, node: Any) -> Image.Image:
    node.invoke(context)
    return context.images.last()


def drawing(size: tuple[int, int] = (128, 96)) -> Image.Image:
    """Return a closed line one pixel wide."""
    image = Image.new("RGB", size)
    ImageDraw.Draw(image).ellipse((10, 10, size[0] - 20, size[1] - 20), outline="white")
    return image


def test_canny_draws_the_outline(context: FakeContext) -> None:
    image = Image.new("RGBA", (60, 40), (10, 10, 10, 255))
    image.paste((240, 30, 30, 255), (20, 10, 40, 30))
    named = context.images.put(image)
    result = run(context, control.CannyEdgeDetectionInvocation(image=named))
    assert (result.mode, result.size) == ("RGB", (60, 40))
    edge_mask = np.asarray(result.convert("L")) > 0
    assert set(np.unique(np.asarray(result))) == {0, 255}
    assert not edge_mask[13:27, 23:37].any()
    assert not edge_mask[:8].any()
    assert 60 <= edge_mask.sum() <= 90
    assert ndimage.label(edge_mask, np.ones((3, 3)))[1] == 1
    blind = run(
        context,
        control.CannyEdgeDetectionInvocation(
            image=context.images.put(Image.new("RGB", (9, 9))), low_threshold=0, high_threshold=0
        ),
    )
    assert blind.getextrema() == ((0, 0),) * 3


@pytest.mark.parametrize(("tile", "colors"), [(16, 6), (48, 1), (1000, 1)])
def test_color_map_consists_of_uniform_squares(context: FakeContext, tile: int, colors: int) -> None:
    result = run(context, control.ColorMapInvocation(image=context.images.put(sample_image()), tile_size=tile))
    assert result.size == (48, 32)
    assert len(result.getcolors()) == colors
    if tile == 16:
        assert result.crop((0, 0, 16, 16)).getcolors() == [(256, result.getpixel((3, 3)))]


@pytest.mark.parametrize("scale", [0, 1, 16, 2**40])
def test_shuffle_keeps_colors_and_moves_pixels(context: FakeContext, scale: int) -> None:
    image = Image.new("RGB", (64, 48), (200, 0, 0))
    image.paste((0, 0, 200), (32, 0, 64, 48))
    node = control.ContentShuffleInvocation(image=context.images.put(image), scale_factor=scale)
    result = run(context, node)
    assert (result.mode, result.size) == ("RGB", (64, 48))
    values = np.asarray(result, dtype=int)
    assert not values[..., 1].any()
    assert np.abs(values[..., 0] + values[..., 2] - 200).max() <= 2
    if scale < 100:
        assert result.tobytes() != image.tobytes()
        assert (values[..., 0] > 150).any()
        assert (values[..., 2] > 150).any()


class TestHeuristicResize:
    def resize(self, context: FakeContext, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        node = control.HeuristicResizeInvocation(image=context.images.put(image), width=size[0], height=size[1])
        result = run(context, node)
        assert result.size == size
        return result

    @pytest.mark.parametrize("size", [(256, 192), (64, 48), (129, 95)])
    def test_line_art_stays_a_single_connected_line(self, context: FakeContext, size: tuple[int, int]) -> None:
        result = np.asarray(self.resize(context, drawing(), size))
        assert set(np.unique(result)) == {0, 255}
        line = result[..., 0] > 0
        assert ndimage.label(line, np.ones((3, 3)))[1] == 1
        assert ndimage.label(~line)[1] == 2, "still closed: an inside and an outside"

    def test_binary_images_stay_binary(self, context: FakeContext) -> None:
        image = Image.new("RGB", (40, 40))
        image.paste((255, 255, 255), (0, 0, 20, 40))
        for size in ((17, 33), (90, 55)):
            result = np.asarray(self.resize(context, image, size))
            assert set(np.unique(result)) == {0, 255}
            assert (result > 0).mean() == pytest.approx(0.5, abs=0.05)

    def test_maps_get_no_new_colors(self, context: FakeContext) -> None:
        image = Image.new("RGB", (40, 40), (9, 8, 7))
        for index in range(5):
            image.paste((index * 50, 100, 255 - index * 50), (index * 8, 0, index * 8 + 8, 20))
        there = {color for _, color in image.getcolors()}
        for size in ((17, 33), (90, 55)):
            assert {color for _, color in self.resize(context, image, size).getcolors()} == there

    def test_photos_and_alpha_are_interpolated(self, context: FakeContext) -> None:
        small = self.resize(context, Image.effect_noise((200, 200), 80).convert("RGB").copy(), (10, 10))
        assert np.asarray(small).std() < 20
        noise = Image.merge("RGB", [Image.effect_noise((64, 64), 90) for _ in range(3)])
        assert np.asarray(self.resize(context, noise, (8, 8)), dtype=float).std() < np.asarray(noise).std() / 3
        noise.putalpha(Image.linear_gradient("L").resize((64, 64)))
        result = self.resize(context, noise, (32, 16))
        assert result.mode == "RGBA"
        alpha = np.asarray(result, dtype=int)[:, 5, 3]
        assert alpha[0] < 30
        assert alpha[-1] > 220

    @pytest.mark.parametrize(
        "image", [drawing(), sample_image(), Image.new("RGB", (9, 9)), Image.new("RGB", (1, 1), "white")]
    )
    def test_the_same_size_changes_nothing(self, context: FakeContext, image: Image.Image) -> None:
        assert self.resize(context, image, image.size).tobytes() == image.tobytes()
        self.resize(context, image, (5, 7))
