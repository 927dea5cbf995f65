"""Nodes that filter images."""

import pytest
from PIL import Image

from invokeclone.nodes.images import filters
from tests.applications import sample_image
from tests.fakes_context import FakeContext

RED, CLEAR = (255, 0, 0, 255), (0, 0, 0, 0)


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def flat(color: tuple[int, ...], mode: str = "RGBA", size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new(mode, size, color)


def run(context: FakeContext, node: object) -> Image.Image:
    node.invoke(context)
    return context.images.last()


class TestFilters:
    @pytest.mark.parametrize("kind", ["gaussian", "box"])
    def test_transparent_pixels_do_not_bleed_color(self, context: FakeContext, kind: str) -> None:
        half = flat((0, 255, 0, 0), size=(40, 20))
        half.paste(RED, (0, 0, 20, 20))
        result = run(context, filters.ImageBlurInvocation(image=context.images.put(half), radius=4, blur_type=kind))
        at_the_edge = result.getpixel((21, 10))
        assert result.mode == "RGBA"
        assert at_the_edge[0] > 240
        assert at_the_edge[1] < 10
        assert 20 < at_the_edge[3] < 235
        assert result.getpixel((0, 10)) == RED

    def test_zero_radius_leaves_the_image_unchanged(self, context: FakeContext) -> None:
        named = context.images.put(sample_image())
        assert (
            run(context, filters.ImageBlurInvocation(image=named, radius=0)).tobytes() == sample_image("RGBA").tobytes()
        )

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
    def test_sharpening_keeps_transparency(self, context: FakeContext, mode: str) -> None:
        sent = sample_image().convert(mode)
        if mode in {"LA", "RGBA"}:
            sent.putalpha(77)
        result = run(context, filters.UnsharpMaskInvocation(image=context.images.put(sent), radius=3, strength=150))
        assert result.mode == ("RGBA" if mode in {"LA", "RGBA"} else "RGB")
        assert result.convert("RGB").tobytes() != sent.convert("RGB").tobytes()
        assert result.convert("RGBA").getpixel((0, 0))[3] == (77 if mode in {"LA", "RGBA"} else 255)

    def test_enhance(self, context: FakeContext) -> None:
        named = context.images.put(flat((100, 150, 200, 99)))
        node = filters.InvokeImageEnhanceInvocation
        assert run(context, node(image=named)).getpixel((0, 0)) == (100, 150, 200, 99)
        assert run(context, node(image=named, invert=True)).getpixel((0, 0)) == (155, 105, 55, 99)
        assert run(context, node(image=named, brightness=0)).getpixel((0, 0)) == (0, 0, 0, 99)
        grey = run(context, node(image=named, color=0)).getpixel((0, 0))
        assert grey[0] == grey[1] == grey[2]

    def test_infill(self, context: FakeContext) -> None:
        half = flat(CLEAR)
        half.paste(RED, (0, 0, 2, 4))
        result = run(context, filters.InfillColorInvocation(image=context.images.put(half)))
        assert [result.getpixel(at) for at in ((0, 0), (3, 3))] == [RED, (127, 127, 127, 255)]
