"""Nodes that change the values of pixels, and nodes that put images and masks together."""

import pytest
from PIL import Image

from invokeclone.graph.fields import ColorField
from invokeclone.graph.invocation import NodeError
from invokeclone.graph.taxonomy import ImageCategory
from invokeclone.nodes import image_channels as channels
from invokeclone.nodes import image_compose as compose
from invokeclone.nodes import image_filters as filters
from tests.fakes_context import FakeContext
from tests.rooms import picture

RED, BLUE, CLEAR = (255, 0, 0, 255), (0, 0, 255, 255), (0, 0, 0, 0)


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def flat(color: tuple[int, ...], mode: str = "RGBA", size: tuple[int, int] = (4, 4)) -> Image.Image:
    return Image.new(mode, size, color)


def run(context: FakeContext, node: object) -> Image.Image:
    node.invoke(context)
    return context.images.last()


class TestChannels:
    @pytest.mark.parametrize(("channel", "value"), [("R", 1), ("G", 2), ("B", 3), ("A", 4)])
    def test_extract(self, context: FakeContext, channel: str, value: int) -> None:
        made = run(
            context, channels.ImageChannelInvocation(image=context.images.put(flat((1, 2, 3, 4))), channel=channel)
        )
        assert (made.mode, made.getpixel((0, 0))) == ("L", value)

    @pytest.mark.parametrize(
        ("channel", "offset", "expected"),
        [
            ("Red (RGBA)", 10, (110, 150, 200, 99)),
            ("Blue (RGBA)", 100, (100, 150, 255, 99)),
            ("Green (RGBA)", -200, (100, 0, 200, 99)),
            ("Alpha (RGBA)", 255, (100, 150, 200, 255)),
        ],
    )
    def test_offset(self, context: FakeContext, channel: str, offset: int, expected: tuple[int, ...]) -> None:
        named = context.images.put(flat((100, 150, 200, 99)))
        made = run(context, channels.ImageChannelOffsetInvocation(image=named, channel=channel, offset=offset))
        assert made.getpixel((0, 0)) == expected

    def test_only_hue_goes_round(self, context: FakeContext) -> None:
        named = context.images.put(flat((255, 0, 0), "RGB"))
        made = run(context, channels.ImageChannelOffsetInvocation(image=named, channel="Hue (HSV)", offset=-85))
        r, g, b, _ = made.getpixel((0, 0))
        assert b > 250
        assert max(r, g) < 10
        made = run(context, channels.ImageChannelOffsetInvocation(image=named, channel="Value (HSV)", offset=-300 + 45))
        assert made.getpixel((0, 0)) == (0, 0, 0, 255)

    @pytest.mark.parametrize("channel", channels.CHANNEL_FORMATS)
    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
    def test_changing_nothing_changes_little(self, context: FakeContext, channel: str, mode: str) -> None:
        sent = picture().convert(mode)
        named = context.images.put(sent)
        made = run(context, channels.ImageChannelMultiplyInvocation(image=named, channel=channel))
        assert made.mode == "RGBA"
        before, after = sent.convert("RGBA").tobytes(), made.tobytes()
        limit = 40 if "LAB" in channel else 8
        assert sum(abs(a - b) for a, b in zip(before, after, strict=True)) / len(before) < limit

    def test_multiply_and_invert(self, context: FakeContext) -> None:
        named = context.images.put(flat((100, 150, 200, 99)))
        node = channels.ImageChannelMultiplyInvocation
        assert run(context, node(image=named, channel="Red (RGBA)", scale=1.509)).getpixel((0, 0))[0] == 150
        assert run(context, node(image=named, channel="Red (RGBA)", scale=9)).getpixel((0, 0))[0] == 255
        assert run(context, node(image=named, channel="Red (RGBA)", invert_channel=True)).getpixel((0, 0)) == (
            155,
            150,
            200,
            99,
        )

    @pytest.mark.parametrize(("hue", "strongest"), [(0, 0), (120, 1), (240, 2), (360, 0), (-120, 2)])
    def test_hue(self, context: FakeContext, hue: int, strongest: int) -> None:
        named = context.images.put(flat((255, 0, 0, 40)))
        made = run(context, channels.ImageHueAdjustmentInvocation(image=named, hue=hue)).getpixel((0, 0))
        assert made[strongest] > 250
        assert made[3] == 40

    def test_lerp(self, context: FakeContext) -> None:
        ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
        made = run(context, channels.ImageLerpInvocation(image=context.images.put(ramp), min=50, max=101))
        assert list(made.tobytes()) == [50 + value * 51 // 255 for value in range(256)]
        made = run(context, channels.ImageLerpInvocation(image=context.images.put(ramp), min=255, max=0))
        assert list(made.tobytes()) == list(range(255, -1, -1))

    def test_inverse_lerp(self, context: FakeContext) -> None:
        ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
        made = run(context, channels.ImageInverseLerpInvocation(image=context.images.put(ramp), min=50, max=101))
        values = list(made.tobytes())
        assert (values[0], values[50], values[51], values[100], values[101], values[255]) == (0, 0, 5, 250, 255, 255)
        made = run(context, channels.ImageInverseLerpInvocation(image=context.images.put(ramp), min=9, max=9))
        assert list(made.tobytes()) == [0] * 10 + [255] * 246

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
    def test_lerp_takes_any_mode(self, context: FakeContext, mode: str) -> None:
        named = context.images.put(picture("L").convert(mode))
        assert run(context, channels.ImageLerpInvocation(image=named)).size == (48, 32)


class TestFilters:
    @pytest.mark.parametrize("kind", ["gaussian", "box"])
    def test_transparent_pixels_lend_no_color(self, context: FakeContext, kind: str) -> None:
        half = flat((0, 255, 0, 0), size=(40, 20))
        half.paste(RED, (0, 0, 20, 20))
        made = run(context, filters.ImageBlurInvocation(image=context.images.put(half), radius=4, blur_type=kind))
        at_the_edge = made.getpixel((21, 10))
        assert made.mode == "RGBA"
        assert at_the_edge[0] > 240
        assert at_the_edge[1] < 10
        assert 20 < at_the_edge[3] < 235
        assert made.getpixel((0, 10)) == RED

    def test_no_radius_no_blur(self, context: FakeContext) -> None:
        named = context.images.put(picture())
        assert run(context, filters.ImageBlurInvocation(image=named, radius=0)).tobytes() == picture("RGBA").tobytes()

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
    def test_sharpening_keeps_transparency(self, context: FakeContext, mode: str) -> None:
        sent = picture().convert(mode)
        if mode in {"LA", "RGBA"}:
            sent.putalpha(77)
        made = run(context, filters.UnsharpMaskInvocation(image=context.images.put(sent), radius=3, strength=150))
        assert made.mode == ("RGBA" if mode in {"LA", "RGBA"} else "RGB")
        assert made.convert("RGB").tobytes() != sent.convert("RGB").tobytes()
        assert made.convert("RGBA").getpixel((0, 0))[3] == (77 if mode in {"LA", "RGBA"} else 255)

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
        made = run(context, filters.InfillColorInvocation(image=context.images.put(half)))
        assert [made.getpixel(at) for at in ((0, 0), (3, 3))] == [RED, (127, 127, 127, 255)]


class TestComposing:
    def test_the_canvas_grows(self, context: FakeContext) -> None:
        base, over = context.images.put(flat(RED)), context.images.put(flat(BLUE))
        made = run(context, compose.ImagePasteInvocation(base_image=base, image=over, x=-2, y=3))
        assert made.size == (6, 7)
        assert [made.getpixel(at) for at in ((0, 0), (2, 0), (5, 3), (0, 3), (3, 6), (4, 6))] == [
            CLEAR,
            RED,
            RED,
            BLUE,
            BLUE,
            CLEAR,
        ]
        made = run(context, compose.ImagePasteInvocation(base_image=base, image=over, x=-2, y=3, crop=True))
        assert made.size == (4, 4)
        assert [made.getpixel(at) for at in ((0, 3), (1, 3), (2, 3), (0, 0))] == [BLUE, BLUE, RED, RED]

    def test_white_of_the_mask_keeps_the_base(self, context: FakeContext) -> None:
        mask = flat((0,), "L")
        mask.paste(255, (0, 0, 2, 4))
        base, over, keep = (context.images.put(one) for one in (flat(RED), flat(BLUE), mask))
        made = run(context, compose.ImagePasteInvocation(base_image=base, image=over, mask=keep))
        assert [made.getpixel(at) for at in ((0, 0), (3, 3))] == [RED, BLUE]
        other = context.images.put(flat((0,), "L", (3, 3)))
        with pytest.raises(NodeError):
            compose.ImagePasteInvocation(base_image=base, image=over, mask=other).invoke(context)

    def test_multiply(self, context: FakeContext) -> None:
        first, second = context.images.put(flat((100, 200, 255), "RGB")), context.images.put(flat((128,), "L"))
        made = run(context, compose.ImageMultiplyInvocation(image1=first, image2=second))
        assert (made.mode, made.getpixel((0, 0))) == ("RGB", (50, 100, 128))

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
        made = run(context, compose.MaskFromAlphaInvocation(image=named, invert=invert))
        assert (made.mode, made.getpixel((0, 0))) == ("L", expected)
        assert context.images.saved[-1].image_category is ImageCategory.MASK

    def test_combined_masks_multiply(self, context: FakeContext) -> None:
        first, second = context.images.put(flat((255,), "L")), context.images.put(flat((60,), "L"))
        made = run(context, compose.MaskCombineInvocation(mask1=first, mask2=second))
        assert made.getpixel((0, 0)) == 60
        assert context.images.saved[-1].image_category is ImageCategory.MASK

    @pytest.mark.parametrize(
        ("threshold", "invert", "left", "right"),
        [(0, False, 255, 0), (0, True, 0, 255), (400, False, 255, 255), (-1, False, 0, 0)],
    )
    def test_mask_of_a_color(self, context: FakeContext, threshold: int, invert: bool, left: int, right: int) -> None:
        half = flat(RED)
        half.paste(BLUE, (2, 0, 4, 4))
        red = ColorField(r=255, g=0, b=0, a=255)
        node = compose.MaskFromIDInvocation(
            image=context.images.put(half), color=red, threshold=threshold, invert=invert
        )
        made = run(context, node)
        assert (made.mode, made.getpixel((0, 0)), made.getpixel((3, 3))) == ("L", left, right)
        assert context.images.saved[-1].image_category is ImageCategory.MASK

    @pytest.mark.parametrize(("invert", "opacity"), [(False, 60), (True, 195)])
    def test_apply_mask(self, context: FakeContext, invert: bool, opacity: int) -> None:
        image, mask = context.images.put(flat(RED)), context.images.put(flat((60,), "L"))
        made = run(context, compose.ApplyMaskToImageInvocation(image=image, mask=mask, invert_mask=invert))
        assert made.getpixel((0, 0)) == (255, 0, 0, opacity)
        wrong = context.images.put(flat((60,), "L", (3, 3)))
        with pytest.raises(NodeError):
            compose.ApplyMaskToImageInvocation(image=image, mask=wrong).invoke(context)
