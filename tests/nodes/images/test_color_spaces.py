"""Color spaces there and back, and the nodes that change images in them."""

import colorsys
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from invokeclone.graph.invocations.invocation import NodeError
from invokeclone.nodes.images import colors as color_nodes
from invokeclone.nodes.images.pixels import blends, colors
from tests.applications import sample_image
from tests.fakes_context import FakeContext

PURE = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0], [0.5, 0.5, 0.5]]], dtype=float)
SPACES = ["HSL (RGB)", "HSV (RGB)", "Okhsl", "Okhsv", "Oklch (Oklab)", "LCh (CIELab)"]


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


@pytest.fixture
def many() -> np.ndarray:
    """Return all sorts of colors: random ones, and those on edges and corners of the cube."""
    samples = np.random.default_rng(0).random((60, 50, 3))
    samples[:20] = np.round(samples[:20] * 2) / 2
    return samples


def run(context: FakeContext, node: Any) -> Image.Image:
    node.invoke(context)
    return context.images.last()


def store_image(context: FakeContext, color: tuple[int, ...], mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Any:
    return context.images.put(Image.new(mode, size, color))


def lch(srgb: np.ndarray) -> np.ndarray:
    return colors.polar(colors.oklab_of(colors.linear_of(srgb)))


class TestSpaces:
    def test_color_space_conversions_round_trip(self, many: np.ndarray) -> None:
        linear = colors.linear_of(many)
        assert np.allclose(colors.srgb_of(linear), many)
        assert np.allclose(colors.linear_of_oklab(colors.oklab_of(linear)), linear)
        assert np.allclose(colors.linear_of_cielab(colors.cielab_of(linear)), linear)
        assert np.allclose(colors.cartesian(colors.polar(colors.oklab_of(linear))), colors.oklab_of(linear))

    @pytest.mark.parametrize("space", SPACES)
    def test_channel_conversions_round_trip(self, many: np.ndarray, space: str) -> None:
        parts = blends.parts_of(many, space)
        back = blends.srgb_of_parts(parts, space, blends.Gamut())
        assert np.abs(back - many).max() < 0.002
        assert parts.min() >= -1e-6
        assert parts.max() <= (1.4 if space.startswith("LCh") else 1.03)

    def test_hsv_and_hsl_agree_with_colorsys(self, many: np.ndarray) -> None:
        for pixel, hsv, hsl in zip(many[30], colors.hsv_of(many)[30], colors.hsl_of(many)[30], strict=True):
            assert colorsys.rgb_to_hsv(*pixel) == pytest.approx(hsv)
            hue, light, saturation = colorsys.rgb_to_hls(*pixel)
            assert (hue, saturation, light) == pytest.approx(hsl)

    def test_conversions_match_reference_values(self) -> None:
        assert colors.cielab_of(colors.linear_of(PURE))[0, 0] * 100 == pytest.approx([53.24, 80.09, 67.2], abs=0.02)
        oklch = lch(PURE)[0]
        assert oklch[0, :2] == pytest.approx([0.628, 0.2577], abs=1e-3)
        assert oklch[0, 2] * 360 == pytest.approx(29.23, abs=0.05)
        assert oklch[4, :2] == pytest.approx([1, 0], abs=1e-6)
        okhsl = colors.okhsl_of(lch(PURE))[0]
        assert okhsl[:3, 1:] == pytest.approx(np.array([[1, 0.5681], [1, 0.8445], [1, 0.3666]]), abs=2e-3)
        okhsv = colors.okhsv_of(lch(PURE))[0]
        assert okhsv[:4, 1:] == pytest.approx(np.ones((4, 2)), abs=2e-3)
        assert okhsv[4:, 1:] == pytest.approx(np.array([[0, 1], [0, 0], [0, 0.5338]]), abs=2e-3)

    @pytest.mark.parametrize("adapt", [0.0, 0.05, 5.0])
    def test_out_of_gamut_colors_are_clipped(self, adapt: float) -> None:
        wild = np.random.default_rng(1).random((30, 40, 3)) * [1, 0.5, 1]
        clipped = colors.clip_to_gamut(wild, adapt)
        linear = colors.linear_of_oklab(colors.cartesian(clipped))
        assert linear.min() > -0.001
        assert linear.max() < 1.001
        assert np.array_equal(clipped[..., 2], wild[..., 2])
        assert (clipped[..., 1] <= wild[..., 1] + 1e-9).all()
        light = np.abs(clipped[..., 0] - wild[..., 0]).max()
        assert light < 1e-9 if adapt == 0 else light > 0.01
        in_gamut = lch(np.random.default_rng(2).random((9, 9, 3)))
        assert np.allclose(colors.clip_to_gamut(in_gamut, adapt), in_gamut)

    def test_saturated_colors_have_higher_perceived_lightness(self) -> None:
        perceived, measured = colors.achromatic_lightness(PURE)[0], blends.lightness(PURE)[0]
        assert perceived[4:] == pytest.approx(measured[4:], abs=1e-4)
        difference = perceived - measured
        assert difference[2] > difference[3] > 0
        assert difference[0] > difference[3]


class TestHue:
    @pytest.mark.parametrize("space", [name for name in get_args(color_nodes.HUE_SPACES) if "UPLab" not in name])
    def test_hue_is_rotated_by_the_given_degrees(self, context: FakeContext, space: str) -> None:
        node = color_nodes.InvokeAdjustImageHuePlusInvocation
        named = context.images.put(sample_image())
        for degrees in (0, 360, -720):
            still = np.asarray(run(context, node(image=named, space=space, degrees=degrees)), dtype=int)
            assert np.abs(still - np.asarray(sample_image(), dtype=int)).max() <= 2
        red = store_image(context, (200, 60, 60, 90), "RGBA")
        r, g, b, a = run(context, node(image=red, space=space, degrees=120)).getpixel((0, 0))
        assert g > max(r, b)
        assert a == 90
        gray = store_image(context, (99, 99, 99))
        assert run(context, node(image=gray, space=space, degrees=77)).getpixel((0, 0)) == pytest.approx(
            (99,) * 3, abs=1
        )

    def test_hsv_is_exact(self, context: FakeContext) -> None:
        node = color_nodes.InvokeAdjustImageHuePlusInvocation(image=store_image(context, (255, 0, 0)), degrees=240)
        assert run(context, node).getpixel((0, 0)) == (0, 0, 255)

    def test_preserve_lightness_keeps_the_lightness(self, context: FakeContext) -> None:
        source = (200, 60, 60)
        light = [
            Image.new("RGB", (1, 1), color).convert("L").getpixel((0, 0))
            for color in (
                run(
                    context,
                    color_nodes.InvokeAdjustImageHuePlusInvocation(
                        image=store_image(context, source), degrees=120, preserve_lightness=keep
                    ),
                ).getpixel((0, 0))
                for keep in (False, True)
            )
        ]
        before = Image.new("RGB", (1, 1), source).convert("L").getpixel((0, 0))
        assert abs(light[1] - before) < abs(light[0] - before)

    def test_low_precision_stays_close_to_full_precision(self, context: FakeContext) -> None:
        named = context.images.put(sample_image())
        exact, rough = (
            np.asarray(
                run(
                    context,
                    color_nodes.InvokeAdjustImageHuePlusInvocation(
                        image=named, space="*Oklch / Oklab", degrees=90, ok_high_precision=precise
                    ),
                ),
                dtype=int,
            )
            for precise in (True, False)
        )
        assert np.abs(exact - rough).mean() < 2

    def test_uplab_is_refused(self, context: FakeContext) -> None:
        node = color_nodes.InvokeAdjustImageHuePlusInvocation(
            image=store_image(context, (1, 2, 3)), space="*UPLab (w/CIELab_to_UPLab.icc)"
        )
        with pytest.raises(NodeError, match="CIELab_to_UPLab"):
            node.invoke(context)

    def test_oklch(self, context: FakeContext) -> None:
        red = store_image(context, (200, 60, 60))
        node = color_nodes.OklchImageHueAdjustmentInvocation
        pixel = run(context, node(image=red, hue=115)).getpixel((0, 0))
        assert pixel[1] > max(pixel[0], pixel[2])
        before, after = (lch(np.array(color) / 255)[0] for color in ((200, 60, 60), pixel))
        assert after == pytest.approx(before, abs=0.01)
        assert run(context, node(image=red, hue=360)).getpixel((0, 0)) == pytest.approx((200, 60, 60), abs=1)


class TestLightness:
    def test_unsharp(self, context: FakeContext) -> None:
        image = Image.new("RGBA", (40, 20), (80, 40, 40, 50))
        image.paste((180, 90, 90, 50), (20, 0, 40, 20))
        named = context.images.put(image)
        node = color_nodes.OklabUnsharpMaskInvocation
        row = np.asarray(run(context, node(image=named, radius=2, strength=100)), dtype=int)[10]
        assert (row[:, 3] == 50).all()
        assert row[19, 0] < 75
        assert row[20, 0] > 185
        assert row[0, :3] == pytest.approx([80, 40, 40], abs=1)
        none = np.asarray(run(context, node(image=named, strength=0)), dtype=int)
        assert np.abs(none - np.asarray(image, dtype=int)).max() <= 1

    def test_equivalent_gray(self, context: FakeContext) -> None:
        node = color_nodes.InvokeEquivalentAchromaticLightnessInvocation
        result = run(context, node(image=store_image(context, (90, 90, 90))))
        assert (result.mode, result.getpixel((0, 0))) == ("L", 90)
        blue, yellow = (
            run(context, node(image=store_image(context, c))).getpixel((0, 0)) for c in ((0, 0, 255), (255, 255, 0))
        )
        assert 0 < blue < yellow
        assert blue > Image.new("RGB", (1, 1), (0, 0, 255)).convert("L").getpixel((0, 0))

    def test_thresholds(self, context: FakeContext) -> None:
        ramp = Image.linear_gradient("L").convert("RGB")
        ramp.putalpha(77)
        named = context.images.put(ramp)

        def thresholds(**settings: Any) -> np.ndarray:
            values = np.asarray(run(context, color_nodes.InvokeImageValueThresholdsInvocation(image=named, **settings)))
            assert (values[..., 3] == 77).all()
            return values[:, 5, 0].astype(int)

        assert thresholds().tolist() == [0] * 128 + [255] * 128
        assert thresholds(invert_output=True).tolist() == [255] * 128 + [0] * 128
        between = thresholds(threshold_lower=0.2, threshold_upper=0.8)
        assert between[100] == 100
        assert between[50] == 0
        assert between[205] == 255
        assert thresholds(threshold_lower=0.8, threshold_upper=0.2).tolist() == between.tolist()
        stretched = thresholds(threshold_lower=0.2, threshold_upper=0.8, renormalize_values=True)
        assert stretched[51] == 0
        assert stretched[52] == pytest.approx(2, abs=1)
        assert stretched[203] > 250
        light = thresholds(lightness_only=True)
        assert set(light.tolist()) == {0, 255}
        assert light[110] == 0
        assert light[130] == 255

    def test_lightness_keeps_the_hue(self, context: FakeContext) -> None:
        node = color_nodes.InvokeImageValueThresholdsInvocation(
            image=store_image(context, (200, 60, 60)), lightness_only=True, threshold_lower=0.1, threshold_upper=0.9
        )
        assert run(context, node).getpixel((0, 0)) == pytest.approx((200, 60, 60), abs=2)

    @pytest.mark.parametrize(("mode", "white"), [("Dilate", 7 * 5), ("Erode", 0)])
    def test_dilate_and_erode_change_the_area(self, context: FakeContext, mode: str, white: int) -> None:
        dot = Image.new("L", (21, 15))
        dot.putpixel((10, 7), 255)
        node = color_nodes.InvokeImageDilateOrErodeInvocation(
            image=context.images.put(dot), radius_w=3, radius_h=2, mode=mode
        )
        result = run(context, node)
        assert result.mode == "L"
        assert (np.asarray(result) == 255).sum() == white
        if white:
            assert result.getbbox() == (7, 5, 14, 10)

    def test_dilate_has_no_radius_limit_and_works_by_channel(self, context: FakeContext) -> None:
        image = Image.new("RGBA", (9, 9), (255, 0, 0, 10))
        image.putpixel((0, 0), (0, 255, 0, 200))
        named = context.images.put(image)
        node = color_nodes.InvokeImageDilateOrErodeInvocation
        result = run(context, node(image=named, radius_w=2**40, radius_h=2**40))
        assert result.getcolors() == [(81, (255, 255, 0, 200))]
        same = run(context, node(image=named, radius_w=0, radius_h=0))
        assert same.tobytes() == image.tobytes()

    def test_dilating_lightness_keeps_colors(self, context: FakeContext) -> None:
        image = Image.new("RGB", (20, 9), (120, 40, 40))
        image.paste((40, 40, 200), (10, 0, 20, 9))
        image.paste((255, 255, 255), (0, 0, 2, 9))
        node = color_nodes.InvokeImageDilateOrErodeInvocation(
            image=context.images.put(image), lightness_only=True, radius_w=3, radius_h=0
        )
        result = run(context, node)
        assert result.getpixel((1, 4)) == pytest.approx((255,) * 3, abs=1)
        r, g, b = result.getpixel((4, 4))
        assert min(r, g, b) > 200, "as light as the white beside it"
        assert result.getpixel((8, 4)) == pytest.approx((120, 40, 40), abs=14)
        assert result.getpixel((18, 4)) == pytest.approx((40, 40, 200), abs=3)
