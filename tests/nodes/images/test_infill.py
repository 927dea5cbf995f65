"""Nodes that fill holes."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from invokeclone.graph.invocations.invocation import NodeError
from invokeclone.nodes.images import infill as infill_nodes
from invokeclone.nodes.images.pixels import infill, patchmatch
from tests.applications import sample_image
from tests.fakes_context import FakeContext

RED, BLUE, CLEAR = (255, 0, 0, 255), (0, 0, 255, 255), (0, 0, 0, 0)


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def run(context: FakeContext, node: Any) -> Image.Image:
    node.invoke(context)
    return context.images.last()


def image_with_hole(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return a picture with a transparent middle."""
    image = sample_image("RGBA", size)
    image.paste(CLEAR, (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    return image


class TestTiles:
    def test_holes_take_colors_from_the_rest_and_opaque_pixels_stay_unchanged(self, context: FakeContext) -> None:
        image = image_with_hole()
        named = context.images.put(image)
        result = run(context, infill_nodes.InfillTileInvocation(image=named, tile_size=8))
        before, after = np.asarray(image), np.asarray(result)
        assert (after[..., 3] == 255).all()
        opaque = before[..., 3] == 255
        assert (after[opaque] == before[opaque]).all()
        there = {tuple(color) for color in before[opaque].tolist()}
        assert {tuple(color) for color in after[~opaque].tolist()} <= there

    def test_result_depends_on_the_seed(self, context: FakeContext) -> None:
        named = context.images.put(image_with_hole())
        results = [run(context, infill_nodes.InfillTileInvocation(image=named, tile_size=4, seed=s)) for s in (1, 1, 2)]
        assert results[0].tobytes() == results[1].tobytes() != results[2].tobytes()

    @pytest.mark.parametrize("size", [1, 3, 32, 1000])
    def test_oversized_tiles_are_reduced(self, context: FakeContext, size: int) -> None:
        image = Image.new("RGBA", (50, 30), CLEAR)
        image.paste(RED, (7, 5, 10, 9))
        result = run(context, infill_nodes.InfillTileInvocation(image=context.images.put(image), tile_size=size))
        assert result.getcolors() == [(1500, RED)]

    def test_fully_transparent_image_is_unchanged_with_a_warning(self, context: FakeContext) -> None:
        named = context.images.put(Image.new("RGBA", (5, 5), CLEAR))
        assert run(context, infill_nodes.InfillTileInvocation(image=named)).getcolors() == [(25, CLEAR)]
        assert context.logger.lines[0][0] == "warning"

    def test_tiles_keep_their_pixels(self) -> None:
        image = np.arange(4 * 6 * 4, dtype=np.uint8).reshape(4, 6, 4)
        image[..., 3] = 255
        squares = infill.tiles_of(image, 2)
        assert squares.shape == (6, 2, 2, 4)
        assert (squares[4] == image[2:4, 2:4]).all()


class TestFlow:
    def test_hole_in_a_uniform_image_takes_its_color(self, context: FakeContext) -> None:
        image = Image.new("RGBA", (37, 23), RED)
        image.paste(CLEAR, (5, 4, 30, 20))
        result = run(context, infill_nodes.CV2InfillInvocation(image=context.images.put(image)))
        assert (result.mode, result.size) == ("RGB", (37, 23))
        assert result.getcolors() == [(37 * 23, (255, 0, 0))]

    def test_opaque_pixels_stay_and_the_hole_is_interpolated(self, context: FakeContext) -> None:
        image = Image.new("RGBA", (64, 32), CLEAR)
        image.paste(RED, (0, 0, 16, 32))
        image.paste(BLUE, (48, 0, 64, 32))
        result = np.asarray(run(context, infill_nodes.CV2InfillInvocation(image=context.images.put(image))), dtype=int)
        assert (result[:, :16] == (255, 0, 0)).all()
        assert (result[:, 48:] == (0, 0, 255)).all()
        row = result[16]
        assert row[18, 0] > row[45, 0]
        assert row[18, 2] < row[45, 2]
        assert row[32, 0] == pytest.approx(row[31, 2], abs=40)
        assert (result.sum(axis=-1) >= 250).all()

    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3)])
    def test_small_and_empty_images(self, context: FakeContext, size: tuple[int, int]) -> None:
        named = context.images.put(Image.new("RGBA", size, CLEAR))
        result = run(context, infill_nodes.CV2InfillInvocation(image=named))
        assert result.size == size
        assert result.getextrema() == ((0, 0),) * 3

    def test_opaque_image_is_unchanged(self, context: FakeContext) -> None:
        result = run(context, infill_nodes.CV2InfillInvocation(image=context.images.put(sample_image())))
        assert result.tobytes() == sample_image().tobytes()

    def test_mask_selects_the_filled_area(self, context: FakeContext) -> None:
        image = Image.new("RGB", (40, 30), (0, 200, 0))
        image.paste((255, 0, 0), (10, 10, 20, 20))
        mask = Image.new("L", (40, 30), 255)
        mask.paste(0, (10, 10, 20, 20))
        mask.paste(120, (10, 10, 20, 11))
        node = infill_nodes.CvInpaintInvocation(image=context.images.put(image), mask=context.images.put(mask))
        assert run(context, node).getcolors() == [(1200, (0, 200, 0))]
        other = context.images.put(Image.new("L", (4, 4)))
        with pytest.raises(NodeError, match="4×4"):
            infill_nodes.CvInpaintInvocation(image=context.images.put(image), mask=other).invoke(context)


class TestPatchMatch:
    def test_pattern_continues_into_the_hole(self) -> None:
        """Stripes of 8 pixels: what is filled is about what was there, where flowing colors are gray."""
        columns = (np.arange(96) // 4 % 2 * 255).astype(np.uint8)
        whole = np.repeat(np.broadcast_to(columns, (64, 96))[..., None], 3, axis=2).copy()
        hole = np.zeros((64, 96), dtype=bool)
        hole[20:44, 36:60] = True
        holed_colors = np.where(hole[..., None], np.uint8(0), whole)
        result = patchmatch.fill_hole(holed_colors, hole)
        flowing = infill.fill_smoothly(holed_colors, (~hole).astype(np.float32))
        error, gray = (np.abs(filled[hole].astype(int) - whole[hole]).mean() for filled in (result, flowing))
        assert error < 30 < gray
        assert np.array_equal(result[~hole], whole[~hole])
        assert np.array_equal(patchmatch.fill_hole(holed_colors, hole), result)

    @pytest.mark.parametrize("size", [(1, 1), (7, 3), (40, 200)])
    def test_all_image_sizes_and_hole_shapes_are_accepted(self, context: FakeContext, size: tuple[int, int]) -> None:
        image = sample_image("RGBA", size)
        image.paste(CLEAR, (0, 0, max(1, size[0] // 2), size[1]))
        for downscale in (1.0, 2.0, 0.5):
            node = infill_nodes.InfillPatchMatchInvocation(image=context.images.put(image), downscale=downscale)
            result = run(context, node)
            assert (result.size, result.getextrema()[3]) == (size, (255, 255)) or size == (1, 1)

    def test_outpainted_border_continues_the_image(self, context: FakeContext) -> None:
        image = Image.new("RGBA", (96, 96), CLEAR)
        image.paste((200, 40, 10, 255), (0, 0, 64, 96))
        result = run(context, infill_nodes.InfillPatchMatchInvocation(image=context.images.put(image)))
        assert np.abs(np.asarray(result)[:, 70:, :3].astype(int) - (200, 40, 10)).max() <= 8
