"""Nodes that fill holes, match colors and add noise."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from invokeclone.graph.invocation import NodeError
from invokeclone.nodes import image_match, image_noise, inpaint
from invokeclone.nodes.pixels import infill, levels
from tests.fakes_context import FakeContext
from tests.rooms import picture

RED, BLUE, CLEAR = (255, 0, 0, 255), (0, 0, 255, 255), (0, 0, 0, 0)


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def run(context: FakeContext, node: Any) -> Image.Image:
    node.invoke(context)
    return context.images.last()


def holed(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return a picture with a transparent middle."""
    image = picture("RGBA", size)
    image.paste(CLEAR, (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4))
    return image


class TestTiles:
    def test_holes_are_filled_from_the_rest_and_nothing_else_changes(self, context: FakeContext) -> None:
        image = holed()
        named = context.images.put(image)
        made = run(context, inpaint.InfillTileInvocation(image=named, tile_size=8))
        before, after = np.asarray(image), np.asarray(made)
        assert (after[..., 3] == 255).all()
        opaque = before[..., 3] == 255
        assert (after[opaque] == before[opaque]).all()
        there = {tuple(color) for color in before[opaque].tolist()}
        assert {tuple(color) for color in after[~opaque].tolist()} <= there

    def test_the_seed_decides(self, context: FakeContext) -> None:
        named = context.images.put(holed())
        made = [run(context, inpaint.InfillTileInvocation(image=named, tile_size=4, seed=s)) for s in (1, 1, 2)]
        assert made[0].tobytes() == made[1].tobytes() != made[2].tobytes()

    @pytest.mark.parametrize("size", [1, 3, 32, 1000])
    def test_tiles_too_large_become_smaller(self, context: FakeContext, size: int) -> None:
        image = Image.new("RGBA", (50, 30), CLEAR)
        image.paste(RED, (7, 5, 10, 9))
        made = run(context, inpaint.InfillTileInvocation(image=context.images.put(image), tile_size=size))
        assert made.getcolors() == [(1500, RED)]

    def test_nothing_to_fill_with(self, context: FakeContext) -> None:
        named = context.images.put(Image.new("RGBA", (5, 5), CLEAR))
        assert run(context, inpaint.InfillTileInvocation(image=named)).getcolors() == [(25, CLEAR)]
        assert context.logger.lines[0][0] == "warning"

    def test_squares_keep_their_pixels(self) -> None:
        image = np.arange(4 * 6 * 4, dtype=np.uint8).reshape(4, 6, 4)
        image[..., 3] = 255
        squares = infill.tiles_of(image, 2)
        assert squares.shape == (6, 2, 2, 4)
        assert (squares[4] == image[2:4, 2:4]).all()


class TestFlow:
    def test_a_hole_in_one_color_is_of_that_color(self, context: FakeContext) -> None:
        image = Image.new("RGBA", (37, 23), RED)
        image.paste(CLEAR, (5, 4, 30, 20))
        made = run(context, inpaint.CV2InfillInvocation(image=context.images.put(image)))
        assert (made.mode, made.size) == ("RGB", (37, 23))
        assert made.getcolors() == [(37 * 23, (255, 0, 0))]

    def test_what_is_there_stays_and_the_hole_lies_between(self, context: FakeContext) -> None:
        image = Image.new("RGBA", (64, 32), CLEAR)
        image.paste(RED, (0, 0, 16, 32))
        image.paste(BLUE, (48, 0, 64, 32))
        made = np.asarray(run(context, inpaint.CV2InfillInvocation(image=context.images.put(image))), dtype=int)
        assert (made[:, :16] == (255, 0, 0)).all()
        assert (made[:, 48:] == (0, 0, 255)).all()
        row = made[16]
        assert row[18, 0] > row[45, 0]
        assert row[18, 2] < row[45, 2]
        assert row[32, 0] == pytest.approx(row[31, 2], abs=40)
        assert (made.sum(axis=-1) >= 250).all()

    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3)])
    def test_small_and_empty_pictures(self, context: FakeContext, size: tuple[int, int]) -> None:
        named = context.images.put(Image.new("RGBA", size, CLEAR))
        made = run(context, inpaint.CV2InfillInvocation(image=named))
        assert made.size == size
        assert made.getextrema() == ((0, 0),) * 3

    def test_an_opaque_picture_is_as_it_was(self, context: FakeContext) -> None:
        made = run(context, inpaint.CV2InfillInvocation(image=context.images.put(picture())))
        assert made.tobytes() == picture().tobytes()

    def test_by_mask(self, context: FakeContext) -> None:
        image = Image.new("RGB", (40, 30), (0, 200, 0))
        image.paste((255, 0, 0), (10, 10, 20, 20))
        mask = Image.new("L", (40, 30), 255)
        mask.paste(0, (10, 10, 20, 20))
        mask.paste(120, (10, 10, 20, 11))
        node = inpaint.CvInpaintInvocation(image=context.images.put(image), mask=context.images.put(mask))
        assert run(context, node).getcolors() == [(1200, (0, 200, 0))]
        other = context.images.put(Image.new("L", (4, 4)))
        with pytest.raises(NodeError, match="4×4"):
            inpaint.CvInpaintInvocation(image=context.images.put(image), mask=other).invoke(context)


class TestMatch:
    @pytest.mark.parametrize("space", ["RGB", "YCbCr", "YCbCr-Chroma", "YCbCr-Luma"])
    def test_like_itself_it_stays(self, context: FakeContext, space: str) -> None:
        named = context.images.put(picture())
        node = image_match.ColorCorrectInvocation(base_image=named, color_reference=named, colorspace=space)
        change = np.abs(np.asarray(run(context, node), dtype=int) - np.asarray(picture(), dtype=int))
        assert change.max() <= (0 if space == "RGB" else 3)

    def test_it_gets_the_colors_of_the_other(self, context: FakeContext) -> None:
        dark = picture().point([value // 2 for value in range(256)] * 3)
        base, reference = context.images.put(dark), context.images.put(picture(size=(100, 90)))
        made = run(context, image_match.ColorCorrectInvocation(base_image=base, color_reference=reference))
        assert made.size == dark.size
        assert np.asarray(made).mean() == pytest.approx(np.asarray(picture(size=(100, 90))).mean(), abs=3)

    def test_luma_and_chroma_alone(self, context: FakeContext) -> None:
        base = context.images.put(Image.new("RGB", (8, 8), (200, 40, 40)))
        gray = context.images.put(Image.new("RGB", (8, 8), (30, 30, 30)))

        def made(space: str) -> tuple[int, ...]:
            node = image_match.ColorCorrectInvocation(base_image=base, color_reference=gray, colorspace=space)
            return run(context, node).convert("YCbCr").getpixel((0, 0))

        y = Image.new("RGB", (1, 1), (200, 40, 40)).convert("YCbCr").getpixel((0, 0))[0]
        assert made("YCbCr-Chroma") == pytest.approx((y, 128, 128), abs=2)
        assert made("YCbCr") == pytest.approx((30, 128, 128), abs=2)
        dark = made("YCbCr-Luma")
        assert dark[0] < y / 2
        assert dark[2] > 140

    def test_the_mask_brings_the_old_back_and_transparency_stays(self, context: FakeContext) -> None:
        base = context.images.put(Image.new("RGBA", (8, 8), (10, 20, 30, 40)))
        reference = context.images.put(Image.new("RGB", (3, 3), (200, 100, 50)))
        mask = Image.new("L", (8, 8), 0)
        mask.paste(255, (0, 0, 4, 8))
        node = image_match.ColorCorrectInvocation(
            base_image=base, color_reference=reference, mask=context.images.put(mask)
        )
        made = run(context, node)
        assert made.getpixel((0, 0)) == (10, 20, 30, 40)
        assert made.getpixel((7, 0)) == (200, 100, 50, 40)
        node.mask = reference
        with pytest.raises(NodeError, match="3×3"):
            node.invoke(context)

    def test_ranks(self) -> None:
        base = np.array([[0, 1], [2, 3]], dtype=np.uint8)
        assert levels.matched(base, base * 50).tolist() == [[0, 50], [100, 150]]


class TestNoise:
    def made(self, context: FakeContext, image: Image.Image, **more: Any) -> np.ndarray:
        return np.asarray(run(context, image_noise.ImageNoiseInvocation(image=context.images.put(image), **more)))

    @pytest.mark.parametrize("kind", ["gaussian", "salt_and_pepper"])
    def test_none_and_seeds(self, context: FakeContext, kind: str) -> None:
        image = Image.new("RGB", (64, 64), (120, 120, 120))
        assert (self.made(context, image, noise_type=kind, amount=0) == 120).all()
        first, again, other = (self.made(context, image, noise_type=kind, seed=seed) for seed in (4, 4, 5))
        assert (first == again).all()
        assert (first != other).any()

    def test_gaussian(self, context: FakeContext) -> None:
        values = self.made(context, Image.new("RGB", (128, 128), (128, 128, 128)), amount=0.1)
        assert values.mean() == pytest.approx(128, abs=1)
        assert values.std() == pytest.approx(25.5, abs=1)
        assert (values[..., 0] != values[..., 1]).any()

    def test_salt_and_pepper(self, context: FakeContext) -> None:
        image = Image.new("RGB", (128, 128), (128, 128, 128))
        values = self.made(context, image, noise_type="salt_and_pepper", amount=0.2)
        assert set(np.unique(values)) == {0, 128, 255}
        assert (values != 128).mean() == pytest.approx(0.2, abs=0.02)
        assert (values == 0).sum() == pytest.approx((values == 255).sum(), rel=0.1)
        assert (self.made(context, image, noise_type="salt_and_pepper", amount=1) != 128).all()

    def test_gray_noise_and_grains(self, context: FakeContext) -> None:
        values = self.made(context, Image.new("RGB", (50, 30), (128,) * 3), noise_color=False, size=7).astype(int)
        assert (values[..., 0] == values[..., 1]).all()
        assert (values[:7, :7] == values[0, 0]).all()
        assert (values[0, 7] != values[0, 6]).any()
        assert values.shape == (30, 50, 3)
        large = self.made(context, Image.new("RGB", (5, 3), (128,) * 3), size=2**40)
        assert (large == large[0, 0]).all()

    def test_mask_and_transparency(self, context: FakeContext) -> None:
        mask = Image.new("L", (40, 20), 255)
        mask.paste(0, (0, 0, 20, 20))
        named = context.images.put(mask)
        values = self.made(context, Image.new("RGBA", (40, 20), (100, 100, 100, 77)), mask=named, amount=0.5)
        assert (values[..., 3] == 77).all()
        assert (values[:, 20:, :3] == 100).all()
        assert (values[:, :20, :3] != 100).mean() > 0.9
        with pytest.raises(NodeError, match="40×20"):
            self.made(context, Image.new("RGB", (4, 4)), mask=named)
