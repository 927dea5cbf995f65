"""The node that matches an image's colors to a reference."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from invokeclone.graph.invocations.invocation import NodeError
from invokeclone.nodes.images import match
from invokeclone.nodes.images.pixels import levels
from tests.applications import sample_image
from tests.fakes_context import FakeContext


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def run(context: FakeContext, node: Any) -> Image.Image:
    node.invoke(context)
    return context.images.last()


class TestMatch:
    @pytest.mark.parametrize("space", ["RGB", "YCbCr", "YCbCr-Chroma", "YCbCr-Luma"])
    def test_matching_an_image_to_itself_changes_nothing(self, context: FakeContext, space: str) -> None:
        named = context.images.put(sample_image())
        node = match.ColorCorrectInvocation(base_image=named, color_reference=named, colorspace=space)
        change = np.abs(np.asarray(run(context, node), dtype=int) - np.asarray(sample_image(), dtype=int))
        assert change.max() <= (0 if space == "RGB" else 3)

    def test_image_takes_the_reference_colors(self, context: FakeContext) -> None:
        dark = sample_image().point([value // 2 for value in range(256)] * 3)
        base, reference = context.images.put(dark), context.images.put(sample_image(size=(100, 90)))
        result = run(context, match.ColorCorrectInvocation(base_image=base, color_reference=reference))
        assert result.size == dark.size
        assert np.asarray(result).mean() == pytest.approx(np.asarray(sample_image(size=(100, 90))).mean(), abs=3)

    def test_luma_and_chroma_alone(self, context: FakeContext) -> None:
        base = context.images.put(Image.new("RGB", (8, 8), (200, 40, 40)))
        gray = context.images.put(Image.new("RGB", (8, 8), (30, 30, 30)))

        def correct_color(space: str) -> tuple[int, ...]:
            node = match.ColorCorrectInvocation(base_image=base, color_reference=gray, colorspace=space)
            return run(context, node).convert("YCbCr").getpixel((0, 0))

        y = Image.new("RGB", (1, 1), (200, 40, 40)).convert("YCbCr").getpixel((0, 0))[0]
        assert correct_color("YCbCr-Chroma") == pytest.approx((y, 128, 128), abs=2)
        assert correct_color("YCbCr") == pytest.approx((30, 128, 128), abs=2)
        dark = correct_color("YCbCr-Luma")
        assert dark[0] < y / 2
        assert dark[2] > 140

    def test_mask_restores_the_original_and_alpha_is_preserved(self, context: FakeContext) -> None:
        base = context.images.put(Image.new("RGBA", (8, 8), (10, 20, 30, 40)))
        reference = context.images.put(Image.new("RGB", (3, 3), (200, 100, 50)))
        mask = Image.new("L", (8, 8), 0)
        mask.paste(255, (0, 0, 4, 8))
        node = match.ColorCorrectInvocation(base_image=base, color_reference=reference, mask=context.images.put(mask))
        result = run(context, node)
        assert result.getpixel((0, 0)) == (10, 20, 30, 40)
        assert result.getpixel((7, 0)) == (200, 100, 50, 40)
        node.mask = reference
        with pytest.raises(NodeError, match="3×3"):
            node.invoke(context)

    def test_histogram_matching_maps_values_by_rank(self) -> None:
        base = np.array([[0, 1], [2, 3]], dtype=np.uint8)
        assert levels.match_histogram(base, base * 50).tolist() == [[0, 50], [100, 150]]
