"""Nodes that change the channels of images."""

import pytest
from PIL import Image

from invokeclone.nodes.images import channels
from tests.applications import sample_image
from tests.fakes_context import FakeContext


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
        result = run(
            context, channels.ImageChannelInvocation(image=context.images.put(flat((1, 2, 3, 4))), channel=channel)
        )
        assert (result.mode, result.getpixel((0, 0))) == ("L", value)

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
        result = run(context, channels.ImageChannelOffsetInvocation(image=named, channel=channel, offset=offset))
        assert result.getpixel((0, 0)) == expected

    def test_only_hue_wraps_around(self, context: FakeContext) -> None:
        named = context.images.put(flat((255, 0, 0), "RGB"))
        result = run(context, channels.ImageChannelOffsetInvocation(image=named, channel="Hue (HSV)", offset=-85))
        r, g, b, _ = result.getpixel((0, 0))
        assert b > 250
        assert max(r, g) < 10
        result = run(
            context, channels.ImageChannelOffsetInvocation(image=named, channel="Value (HSV)", offset=-300 + 45)
        )
        assert result.getpixel((0, 0)) == (0, 0, 0, 255)

    @pytest.mark.parametrize("channel", channels.CHANNEL_FORMATS)
    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
    def test_identity_multiplication_changes_little(self, context: FakeContext, channel: str, mode: str) -> None:
        sent = sample_image().convert(mode)
        named = context.images.put(sent)
        result = run(context, channels.ImageChannelMultiplyInvocation(image=named, channel=channel))
        assert result.mode == "RGBA"
        before, after = sent.convert("RGBA").tobytes(), result.tobytes()
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
        pixel = run(context, channels.ImageHueAdjustmentInvocation(image=named, hue=hue)).getpixel((0, 0))
        assert pixel[strongest] > 250
        assert pixel[3] == 40

    def test_lerp(self, context: FakeContext) -> None:
        ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
        result = run(context, channels.ImageLerpInvocation(image=context.images.put(ramp), min=50, max=101))
        assert list(result.tobytes()) == [50 + value * 51 // 255 for value in range(256)]
        result = run(context, channels.ImageLerpInvocation(image=context.images.put(ramp), min=255, max=0))
        assert list(result.tobytes()) == list(range(255, -1, -1))

    def test_inverse_lerp(self, context: FakeContext) -> None:
        ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
        result = run(context, channels.ImageInverseLerpInvocation(image=context.images.put(ramp), min=50, max=101))
        values = list(result.tobytes())
        assert (values[0], values[50], values[51], values[100], values[101], values[255]) == (0, 0, 5, 250, 255, 255)
        result = run(context, channels.ImageInverseLerpInvocation(image=context.images.put(ramp), min=9, max=9))
        assert list(result.tobytes()) == [0] * 10 + [255] * 246

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
    def test_lerp_takes_any_mode(self, context: FakeContext, mode: str) -> None:
        named = context.images.put(sample_image("L").convert(mode))
        assert run(context, channels.ImageLerpInvocation(image=named)).size == (48, 32)
