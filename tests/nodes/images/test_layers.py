"""Nodes that lay images over each other."""

from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image, ImageChops

from invokeclone.graph.invocations.invocation import NodeError
from invokeclone.nodes.images import layers
from invokeclone.nodes.images.layers import InvokeImageBlendInvocation, InvokeImageCompositorInvocation
from tests.applications import sample_image
from tests.fakes_context import FakeContext

RED, BLUE, CLEAR = (255, 0, 0, 255), (0, 0, 255, 255), (0, 0, 0, 0)
BASE, UPPER = (200, 100, 50), (60, 180, 120)


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def run(context: FakeContext, node: Any) -> Image.Image:
    node.invoke(context)
    return context.images.last()


def flat(color: tuple[int, ...], size: tuple[int, int] = (8, 6)) -> Image.Image:
    return Image.new("RGBA" if len(color) == 4 else "RGB", size, color)


def blend_color(context: FakeContext, base: Any, upper: Any, **settings: Any) -> tuple[int, ...]:
    base, upper = (image if isinstance(image, Image.Image) else flat(image) for image in (base, upper))
    node = InvokeImageBlendInvocation(
        layer_base=context.images.put(base), layer_upper=context.images.put(upper), **settings
    )
    return run(context, node).getpixel((3, 3))


class TestBlend:
    @pytest.mark.parametrize(
        ("mode", "pillow"),
        [
            ("Lighten Only", ImageChops.lighter),
            ("Darken Only", ImageChops.darker),
            ("Linear Dodge (Add)", ImageChops.add),
            ("Subtract", ImageChops.subtract),
            ("Multiply", ImageChops.multiply),
            ("Screen", ImageChops.screen),
            ("Overlay", ImageChops.overlay),
            ("Difference", ImageChops.difference),
            ("Hard Light", ImageChops.hard_light),
        ],
    )
    def test_blend_modes_agree_with_pillow(self, context: FakeContext, mode: str, pillow: Any) -> None:
        base, upper = sample_image(), sample_image().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        node = InvokeImageBlendInvocation(
            layer_base=context.images.put(base), layer_upper=context.images.put(upper), blend_mode=mode
        )
        result = np.asarray(run(context, node).convert("RGB"), dtype=int)
        assert np.abs(result - np.asarray(pillow(base, upper), dtype=int)).max() <= 2

    @pytest.mark.parametrize(
        ("mode", "expected"),
        [
            ("Normal", UPPER),
            ("Linear Burn", (5, 25, 0)),
            ("Linear Light", (65, 205, 35)),
            ("Color Burn", (21, 35, 0)),
            ("Color Dodge", (255, 255, 94)),
            ("Divide", (255, 142, 106)),
        ],
    )
    def test_blend_modes_match_hand_computed_values(
        self, context: FakeContext, mode: str, expected: tuple[int, ...]
    ) -> None:
        assert blend_color(context, BASE, UPPER, blend_mode=mode) == pytest.approx((*expected, 255), abs=1)

    @pytest.mark.parametrize("mode", get_args(layers.BLEND_MODES))
    @pytest.mark.parametrize("space", get_args(layers.BLEND_SPACES))
    def test_every_mode_in_every_space(self, context: FakeContext, mode: str, space: str) -> None:
        rng = np.random.default_rng(3)
        layers = [Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)) for _ in range(2)]
        for layer in layers:
            layer.paste((0, 0, 0), (0, 0, 1, 1))
            layer.paste((255, 255, 255), (1, 0, 2, 1))
        base, upper = (context.images.put(layer) for layer in layers)
        with np.errstate(all="raise", under="ignore"):
            result = run(
                context,
                InvokeImageBlendInvocation(layer_base=base, layer_upper=upper, blend_mode=mode, color_space=space),
            )
        assert (result.mode, result.size) == ("RGBA", (7, 6))
        assert result.getchannel("A").getextrema() == (255, 255)
        nothing = run(
            context,
            InvokeImageBlendInvocation(
                layer_base=base, layer_upper=upper, blend_mode=mode, color_space=space, opacity=0, high_precision=False
            ),
        )
        assert np.abs(np.asarray(nothing.convert("RGB"), dtype=int) - np.asarray(layers[0], dtype=int)).max() <= 1

    @pytest.mark.parametrize("space", ["HSL (RGB)", "HSV (RGB)", "Okhsl", "Okhsv", "Oklch (Oklab)", "LCh (CIELab)"])
    def test_blend_modes_change_only_their_channels(self, context: FakeContext, space: str) -> None:
        gray, color = (128, 128, 128), (200, 60, 60)
        result = blend_color(context, color, gray, blend_mode="Saturation", color_space=space)[:3]
        assert max(result) - min(result) <= 2
        r, g, b, _ = blend_color(context, (60, 60, 200), color, blend_mode="Hue", color_space=space)
        assert r > max(g, b)
        lighter = blend_color(context, color, (220, 220, 220), blend_mode="Luminosity", color_space=space)
        assert sum(lighter[:3]) > sum(color)
        r, g, b, _ = blend_color(context, gray, color, blend_mode="Color", color_space=space)
        assert r > max(g, b)

    def test_eal_modes_compare_perceived_lightness(self, context: FakeContext) -> None:
        gray, blue = (40, 40, 40), (0, 0, 255)
        assert blend_color(context, gray, blue, blend_mode="Lighten Only (EAL)")[:3] == blue
        assert blend_color(context, gray, blue, blend_mode="Darken Only (EAL)")[:3] == gray

    def test_opacity_mask_and_linear_light(self, context: FakeContext) -> None:
        black, white = (0, 0, 0), (255, 255, 255)
        assert blend_color(context, black, white, opacity=0.5)[0] == 128
        assert blend_color(context, black, white, opacity=9)[0] == 255
        assert blend_color(context, black, white, opacity=0.5, color_space="Linear RGB")[0] == 188
        mask = Image.new("L", (8, 6), 255)
        mask.paste(0, (0, 0, 5, 6))
        named = context.images.put(mask)
        assert blend_color(context, RED, BLUE, mask=named) == RED
        assert blend_color(context, RED, BLUE, mask=context.images.put(Image.new("L", (2, 2), 255))) == BLUE

    def test_transparency(self, context: FakeContext) -> None:
        assert blend_color(context, CLEAR, BLUE, blend_mode="Multiply") == BLUE
        assert blend_color(context, RED, CLEAR, blend_mode="Multiply") == RED
        assert blend_color(context, CLEAR, CLEAR) == CLEAR
        assert blend_color(context, (255, 0, 0, 128), (0, 0, 255, 128)) == pytest.approx((85, 0, 170, 192), abs=2)

    @pytest.mark.parametrize(
        ("width", "height", "expected"),
        [
            (True, True, (0, 0, 40, 20)),
            (True, False, (0, 0, 40, 20)),
            (False, True, (10, 0, 30, 20)),
            (False, False, (15, 5, 25, 15)),
        ],
    )
    def test_upper_layer_is_fitted_to_the_base(
        self, context: FakeContext, width: bool, height: bool, expected: tuple[int, ...]
    ) -> None:
        node = InvokeImageBlendInvocation(
            layer_base=context.images.put(flat((0, 0, 0), (40, 20))),
            layer_upper=context.images.put(flat((255, 255, 255), (10, 10))),
            fit_to_width=width,
            fit_to_height=height,
        )
        result = run(context, node)
        assert result.size == (40, 20)
        assert result.convert("L").getbbox() == expected


class TestCompositor:
    def subject(self) -> Image.Image:
        """Return a red square with a green heart on green ground."""
        image = Image.new("RGB", (30, 20), (0, 200, 0))
        image.paste((200, 0, 0), (10, 5, 20, 15))
        image.paste((0, 200, 0), (14, 9, 16, 11))
        return image

    def composite(self, context: FakeContext, subject: Image.Image, **settings: Any) -> Image.Image:
        ground = context.images.put(flat(BLUE, (60, 20)))
        node = InvokeImageCompositorInvocation(
            image_subject=context.images.put(subject), image_background=ground, **settings
        )
        return run(context, node)

    def test_background_connected_to_the_corners_is_removed(self, context: FakeContext) -> None:
        result = self.composite(context, self.subject())
        assert result.size == (60, 20)
        assert [result.getpixel(at)[:3] for at in ((16, 1), (26, 7), (29, 9), (59, 0))] == [
            (0, 0, 255),
            (200, 0, 0),
            (0, 200, 0),
            (0, 0, 255),
        ]

    @pytest.mark.parametrize("key", ["(0, 190, 10)", "0,200,0", "#00c800", "rgb(0,200,0)"])
    def test_chroma_key_is_removed_everywhere(self, context: FakeContext, key: str) -> None:
        result = self.composite(context, self.subject(), chroma_key=key)
        assert result.getpixel((29, 9)) == BLUE
        assert result.getpixel((26, 7))[:3] == (200, 0, 0)

    def test_thresholds_apply_and_invalid_keys_are_refused(self, context: FakeContext) -> None:
        assert self.composite(context, self.subject(), threshold=500).getcolors() == [(1200, BLUE)]
        assert self.composite(context, self.subject(), chroma_key="(0,180,0)", threshold=5).getpixel((16, 1))[1] == 200
        for key in ("greenish", "(1,2)", "(0,300,0)"):
            with pytest.raises(NodeError, match="not a color"):
                self.composite(context, self.subject(), chroma_key=key)

    def test_transparent_subject_is_used_as_a_cutout(self, context: FakeContext) -> None:
        image = Image.new("RGBA", (30, 20), CLEAR)
        image.paste(RED, (0, 0, 10, 20))
        result = self.composite(context, image)
        assert result.getpixel((16, 3)) == RED
        assert result.getpixel((40, 3)) == BLUE

    @pytest.mark.parametrize(
        ("more", "expected"),
        [
            ({}, (15, 0, 45, 20)),
            ({"x_offset": 5, "y_offset": 4}, (20, 4, 50, 20)),
            ({"x_offset": -100}, None),
            ({"fill_x": True}, (0, 0, 60, 20)),
            ({"fill_x": True, "fill_y": False}, (0, 0, 60, 20)),
        ],
    )
    def test_subject_is_placed_and_scaled(self, context: FakeContext, more: dict[str, Any], expected: Any) -> None:
        image = Image.new("RGBA", (30, 20), RED)
        image.putpixel((0, 0), (255, 0, 0, 254))
        result = self.composite(context, image, **more)
        assert result.getchannel("R").point([0] * 100 + [255] * 156).getbbox() == expected
