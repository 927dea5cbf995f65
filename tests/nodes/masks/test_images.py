"""Nodes that change and measure mask images."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from invokeclone.graph.invocations.invocation import NodeError
from invokeclone.graph.vocabulary.fields import ColorField
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.nodes.images.pixels import edges
from invokeclone.nodes.images.pixels import masks as mask_pixels
from invokeclone.nodes.masks import images
from tests.applications import sample_image
from tests.fakes_context import FakeContext

RED, BLUE = (255, 0, 0, 255), (0, 0, 255, 255)


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def flat(color: Any, mode: str = "RGBA", size: tuple[int, int] = (40, 20)) -> Image.Image:
    return Image.new(mode, size, color)


def half(size: tuple[int, int] = (40, 20)) -> Image.Image:
    """Return a mask whose left half is black."""
    mask = Image.new("L", size, 255)
    mask.paste(0, (0, 0, size[0] // 2, size[1]))
    return mask


def run(context: FakeContext, node: Any) -> Image.Image:
    node.invoke(context)
    return context.images.last()


class TestFade:
    def test_black_area_expands_and_fades(self, context: FakeContext) -> None:
        named = context.images.put(half((100, 8)))
        result = run(context, images.ExpandMaskWithFadeInvocation(mask=named, fade_size_px=20))
        row = np.asarray(result, dtype=int)[4]
        assert not row[:50].any()
        assert 0 < row[50] < 5
        assert (np.diff(row) >= 0).all()
        assert row[59] == pytest.approx(127.5, abs=1)
        assert (row[69:] == 255).all()
        assert row[67] < 255
        assert context.images.saved[-1].image_category is ImageCategory.MASK

    def test_threshold_selects_black_pixels(self, context: FakeContext) -> None:
        named = context.images.put(flat(100, "L"))
        for threshold, expected in ((99, 255), (100, 0)):
            node = images.ExpandMaskWithFadeInvocation(mask=named, threshold=threshold)
            assert run(context, node).getextrema() == (expected, expected)

    @pytest.mark.parametrize("image", [sample_image("L"), half(), flat(255, "L"), flat(0, "L")])
    def test_no_fade_leaves_the_mask(self, context: FakeContext, image: Image.Image) -> None:
        node = images.ExpandMaskWithFadeInvocation(mask=context.images.put(image), fade_size_px=0)
        assert run(context, node).tobytes() == image.tobytes()


class TestBounds:
    @pytest.mark.parametrize(
        ("margin", "expected"),
        [(0, (4, 5, 9, 11)), (2, (2, 3, 11, 13)), (100, (0, 0, 20, 16)), (-1, (5, 6, 8, 10)), (-3, (0, 0, 0, 0))],
    )
    def test_white(self, context: FakeContext, margin: int, expected: tuple[int, ...]) -> None:
        mask = flat(0, "L", (20, 16))
        mask.paste(255, (4, 5, 9, 11))
        node = images.GetMaskBoundingBoxInvocation(mask=context.images.put(mask), margin=margin)
        box = node.invoke(context).bounding_box
        assert (box.x_min, box.y_min, box.x_max, box.y_max) == expected

    def test_other_colors_are_found_and_no_match_is_empty(self, context: FakeContext) -> None:
        image = flat(RED, size=(6, 6))
        image.paste(BLUE, (0, 5, 6, 6))
        named = context.images.put(image)
        color = ColorField(r=0, g=0, b=255, a=255)
        box = images.GetMaskBoundingBoxInvocation(mask=named, mask_color=color).invoke(context).bounding_box
        assert (box.x_min, box.x_max, box.y_min, box.y_max) == (0, 6, 5, 6)
        none = images.GetMaskBoundingBoxInvocation(mask=named).invoke(context).bounding_box
        assert set(none.tuple()) == {0}

    @given(data=st.binary(min_size=12, max_size=12), margin=st.integers(-3, 3))
    def test_bounds_are_always_within_the_image(self, data: bytes, margin: int) -> None:
        matches = np.frombuffer(data, dtype=np.uint8).reshape(3, 4) > 200
        left, top, right, bottom = mask_pixels.bounds(matches, margin)
        assert 0 <= left <= right <= 4
        assert 0 <= top <= bottom <= 3
        if margin == 0:
            assert matches[top:bottom, left:right].sum() == matches.sum()


class TestEdges:
    def test_step_edge_yields_one_line(self) -> None:
        edge_map = edges.canny(np.asarray(half()), 100, 200)
        assert edge_map.shape == (20, 40)
        assert set(np.unique(edge_map)) == {0, 255}
        assert (edge_map > 0).sum(axis=1).tolist() == [1] * 20
        assert set(np.nonzero(edge_map)[1]) <= {19, 20}

    @pytest.mark.parametrize("turn", [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180])
    def test_transposed_step_edge_yields_one_line(self, turn: Image.Transpose) -> None:
        edge_map = edges.canny(np.asarray(half().transpose(turn)), 100, 200)
        assert (edge_map > 0).sum() == 20

    def test_diagonal_edge_is_found_and_thin(self) -> None:
        y, x = np.mgrid[:40, :40]
        edge_map = edges.canny(((x + y > 40) * 200).astype(np.uint8), 100, 200)
        assert 30 <= (edge_map > 0).sum() <= 80

    def test_weak_edges_need_strong_ones(self) -> None:
        image = np.zeros((20, 60), dtype=np.uint8)
        image[:, 20:] = 40
        image[:10, 20:] = 200
        joined = edges.canny(image, 100, 500) > 0
        assert joined[15, 18:22].any(), "weak, but joined to a strong one"
        image[:10, 20:] = 40
        assert not edges.canny(image, 100, 500).any(), "weak alone"
        assert edges.canny(image, 500, 100).tobytes() == edges.canny(image, 100, 500).tobytes()

    def test_color_alone_is_an_edge(self) -> None:
        image = np.zeros((10, 20, 3), dtype=np.uint8)
        image[:, :10, 0] = image[:, 10:, 2] = 200
        assert (edges.canny(image, 100, 200) > 0).sum() == 10

    def test_uniform_image_has_no_edges(self) -> None:
        assert not edges.canny(np.full((5, 5), 77, dtype=np.uint8), 0, 0).any()
        assert edges.canny(np.zeros((1, 1), dtype=np.uint8), 0, 0).shape == (1, 1)

    def test_mask_edge(self, context: FakeContext) -> None:
        named = context.images.put(half((80, 40)))

        def edge(size: int, blur: int) -> np.ndarray:
            node = images.MaskEdgeInvocation(
                image=named, edge_size=size, edge_blur=blur, low_threshold=100, high_threshold=200
            )
            return np.asarray(run(context, node))[20]

        sharp = edge(8, 0)
        assert (sharp == 0).sum() == 9
        assert not sharp[38:42].any()
        assert (sharp[:30] == 255).all()
        assert (sharp[50:] == 255).all()
        soft = edge(8, 3)
        assert len(set(soft.tolist())) > 3
        assert context.images.saved[-1].image_category is ImageCategory.MASK
        assert (edge(0, 0) == 0).sum() == 1
        assert not edge(2**40, 2**20).any()
        for wrong in ((-1, 0), (0, -1)):
            with pytest.raises(NodeError):
                edge(*wrong)

    def test_gray_mask_pixels_belong_to_the_edge(self, context: FakeContext) -> None:
        node = images.MaskEdgeInvocation(
            image=context.images.put(flat(100, "L")), edge_size=0, edge_blur=0, low_threshold=100, high_threshold=200
        )
        assert run(context, node).getextrema() == (0, 0)


@given(data=st.binary(min_size=24, max_size=24), size=st.integers(1, 9))
@settings(deadline=None)
def test_fading_only_darkens_white_pixels(data: bytes, size: int) -> None:
    mask = np.where(np.frombuffer(data, dtype=np.uint8).reshape(4, 6) > 127, 255, 0).astype(np.uint8)
    faded = mask_pixels.fade_edges(mask, 0, size)
    assert ((faded == 0) == (mask == 0)).all() or size > 1
    assert (faded <= mask).all()
    assert not faded[mask == 0].any()
