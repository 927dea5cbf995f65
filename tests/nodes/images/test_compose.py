"""Nodes that compose images and masks."""

import pytest
from PIL import Image

from invokeclone.graph.invocations.invocation import NodeError
from invokeclone.graph.vocabulary.fields import ColorField
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.nodes.images import compose
from tests.fakes_context import FakeContext

RED, BLUE, CLEAR = (255, 0, 0, 255), (0, 0, 255, 255), (0, 0, 0, 0)


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def flat(color: tuple[int, ...], mode: str = "RGBA", size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new(mode, size, color)


def run(context: FakeContext, node: object) -> Image.Image:
    node.invoke(context)
    return context.images.last()


class TestComposing:
    def test_paste_enlarges_the_canvas(self, context: FakeContext) -> None:
        base, over = context.images.put(flat(RED)), context.images.put(flat(BLUE))
        result = run(context, compose.ImagePasteInvocation(base_image=base, image=over, x=-2, y=3))
        assert result.size == (6, 7)
        assert [result.getpixel(at) for at in ((0, 0), (2, 0), (5, 3), (0, 3), (3, 6), (4, 6))] == [
            CLEAR,
            RED,
            RED,
            BLUE,
            BLUE,
            CLEAR,
        ]
        result = run(context, compose.ImagePasteInvocation(base_image=base, image=over, x=-2, y=3, crop=True))
        assert result.size == (4, 4)
        assert [result.getpixel(at) for at in ((0, 3), (1, 3), (2, 3), (0, 0))] == [BLUE, BLUE, RED, RED]

    def test_white_mask_pixels_keep_the_base(self, context: FakeContext) -> None:
        mask = flat((0,), "L")
        mask.paste(255, (0, 0, 2, 4))
        base, over, keep = (context.images.put(image) for image in (flat(RED), flat(BLUE), mask))
        result = run(context, compose.ImagePasteInvocation(base_image=base, image=over, mask=keep))
        assert [result.getpixel(at) for at in ((0, 0), (3, 3))] == [RED, BLUE]
        other = context.images.put(flat((0,), "L", (3, 3)))
        with pytest.raises(NodeError):
            compose.ImagePasteInvocation(base_image=base, image=over, mask=other).invoke(context)

    def test_multiply(self, context: FakeContext) -> None:
        first, second = context.images.put(flat((100, 200, 255), "RGB")), context.images.put(flat((128,), "L"))
        result = run(context, compose.ImageMultiplyInvocation(image1=first, image2=second))
        assert (result.mode, result.getpixel((0, 0))) == ("RGB", (50, 100, 128))

    @pytest.mark.parametrize(
        ("color", "mode", "invert", "expected"),
        [
            ((1, 2, 3, 40), "RGBA", False, 40),
            ((1, 2, 3, 40), "RGBA", True, 215),
            ((1, 2, 3), "RGB", False, 3),
            ((9,), "L", False, 9),
        ],
    )
    def test_tomask(self, context: FakeContext, color, mode: str, invert: bool, expected: int) -> None:
        named = context.images.put(flat(color, mode))
        result = run(context, compose.MaskFromAlphaInvocation(image=named, invert=invert))
        assert (result.mode, result.getpixel((0, 0))) == ("L", expected)
        assert context.images.saved[-1].image_category is ImageCategory.MASK

    def test_combined_masks_multiply(self, context: FakeContext) -> None:
        first, second = context.images.put(flat((255,), "L")), context.images.put(flat((60,), "L"))
        result = run(context, compose.MaskCombineInvocation(mask1=first, mask2=second))
        assert result.getpixel((0, 0)) == 60
        assert context.images.saved[-1].image_category is ImageCategory.MASK

    @pytest.mark.parametrize(
        ("threshold", "invert", "left", "right"),
        [(0, False, 255, 0), (0, True, 0, 255), (400, False, 255, 255), (-1, False, 0, 0)],
    )
    def test_mask_from_id_selects_a_color(
        self, context: FakeContext, threshold: int, invert: bool, left: int, right: int
    ) -> None:
        half = flat(RED)
        half.paste(BLUE, (2, 0, 4, 4))
        red = ColorField(r=255, g=0, b=0, a=255)
        node = compose.MaskFromIDInvocation(
            image=context.images.put(half), color=red, threshold=threshold, invert=invert
        )
        result = run(context, node)
        assert (result.mode, result.getpixel((0, 0)), result.getpixel((3, 3))) == ("L", left, right)
        assert context.images.saved[-1].image_category is ImageCategory.MASK

    @pytest.mark.parametrize(("invert", "opacity"), [(False, 60), (True, 195)])
    def test_apply_mask(self, context: FakeContext, invert: bool, opacity: int) -> None:
        image, mask = context.images.put(flat(RED)), context.images.put(flat((60,), "L"))
        result = run(context, compose.ApplyMaskToImageInvocation(image=image, mask=mask, invert_mask=invert))
        assert result.getpixel((0, 0)) == (255, 0, 0, opacity)
        wrong = context.images.put(flat((60,), "L", (3, 3)))
        with pytest.raises(NodeError):
            compose.ApplyMaskToImageInvocation(image=image, mask=wrong).invoke(context)
