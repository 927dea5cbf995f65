"""Nodes that make, change and use masks, as tensors and as images, and what the canvas does with them."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from invokeclone.graph.fields import ColorField, ImageField, TensorField
from invokeclone.graph.invocation import NodeError
from invokeclone.graph.outputs import MaskOutput
from invokeclone.graph.taxonomy import ImageCategory
from invokeclone.nodes import canvas, mask_images, mask_tensors
from invokeclone.nodes.pixels import edges, masks
from tests.fakes_context import FakeContext
from tests.rooms import picture

RED, BLUE, CLEAR = (255, 0, 0, 255), (0, 0, 255, 255), (0, 0, 0, 0)


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


def tensor(context: FakeContext, output: MaskOutput) -> torch.Tensor:
    mask = context.tensors.load(output.mask.tensor_name)
    assert (output.height, output.width) == tuple(mask.shape[1:])
    assert mask.shape[0] == 1
    return mask[0]


class TestTensors:
    @pytest.mark.parametrize(
        ("left", "top", "width", "height", "expected"),
        [(2, 1, 3, 2, 6), (-2, -1, 4, 3, 4), (8, 4, 10, 10, 2), (30, 2, 5, 5, 0), (-9, 0, 5, 5, 0), (0, 0, 0, 3, 0)],
    )
    def test_rectangle(self, context: FakeContext, left: int, top: int, width: int, height: int, expected: int) -> None:
        node = mask_tensors.RectangleMaskInvocation(
            width=10, height=5, x_left=left, y_top=top, rectangle_width=width, rectangle_height=height
        )
        mask = tensor(context, node.invoke(context))
        assert (mask.dtype, tuple(mask.shape), int(mask.sum())) == (torch.bool, (5, 10), expected)
        if expected == 6:
            assert mask[1:3, 2:5].all()

    def test_a_rectangle_needs_a_mask_to_be_in(self, context: FakeContext) -> None:
        node = mask_tensors.RectangleMaskInvocation(
            width=0, height=5, x_left=0, y_top=0, rectangle_width=1, rectangle_height=1
        )
        with pytest.raises(NodeError, match="no area"):
            node.invoke(context)

    def test_alpha(self, context: FakeContext) -> None:
        image = flat(CLEAR)
        image.paste((9, 9, 9, 1), (0, 0, 10, 20))
        named = context.images.put(image)
        mask = tensor(context, mask_tensors.AlphaMaskToTensorInvocation(image=named).invoke(context))
        assert mask[:, :10].all()
        assert not mask[:, 10:].any()
        other = tensor(context, mask_tensors.AlphaMaskToTensorInvocation(image=named, invert=True).invoke(context))
        assert torch.equal(other, ~mask)
        opaque = context.images.put(flat(0, "L"))
        assert tensor(context, mask_tensors.AlphaMaskToTensorInvocation(image=opaque).invoke(context)).all()

    @pytest.mark.parametrize(("cutoff", "expected"), [(0, True), (128, True), (129, False)])
    def test_gray(self, context: FakeContext, cutoff: int, expected: bool) -> None:
        named = context.images.put(flat((128, 128, 128), "RGB"))
        node = mask_tensors.ImageMaskToTensorInvocation
        assert tensor(context, node(image=named, cutoff=cutoff).invoke(context)).all().item() is expected
        inverted = tensor(context, node(image=named, cutoff=cutoff, invert=True).invoke(context))
        assert inverted.any().item() is not expected

    @pytest.mark.parametrize(
        ("mask", "expected"),
        [
            (torch.tensor([[[True, False]]]), torch.tensor([[False, True]])),
            (torch.tensor([[True, False]]), torch.tensor([[False, True]])),
            (torch.tensor([[[[0.25, 1.0]]]]), torch.tensor([[0.75, 0.0]])),
        ],
    )
    def test_invert(self, context: FakeContext, mask: torch.Tensor, expected: torch.Tensor) -> None:
        field = TensorField(tensor_name=context.tensors.save(mask))
        output = mask_tensors.InvertTensorMaskInvocation(mask=field).invoke(context)
        assert torch.equal(tensor(context, output), expected)

    def test_what_is_no_mask_is_told(self, context: FakeContext) -> None:
        field = TensorField(tensor_name=context.tensors.save(torch.zeros(1, 4, 8, 8)))
        with pytest.raises(NodeError, match=r"\(1, 4, 8, 8\)"):
            mask_tensors.MaskTensorToImageInvocation(mask=field).invoke(context)

    def test_to_an_image_and_back(self, context: FakeContext) -> None:
        mask = torch.zeros(1, 4, 6, dtype=torch.bool)
        mask[:, :, 3:] = True
        field = TensorField(tensor_name=context.tensors.save(mask))
        image = run(context, mask_tensors.MaskTensorToImageInvocation(mask=field))
        assert (image.mode, image.size, image.getpixel((2, 0)), image.getpixel((3, 0))) == ("L", (6, 4), 0, 255)
        assert context.images.saved[-1].image_category is ImageCategory.MASK
        named = ImageField(image_name=context.images.saved[-1].image_name)
        back = mask_tensors.ImageMaskToTensorInvocation(image=named).invoke(context)
        assert torch.equal(context.tensors.load(back.mask.tensor_name), mask)

    @pytest.mark.parametrize("invert", [False, True])
    def test_applied(self, context: FakeContext, invert: bool) -> None:
        mask = torch.zeros(1, 20, 40)
        mask[:, :, :20], mask[:, :, 20:30] = 1.0, 0.5
        field = TensorField(tensor_name=context.tensors.save(mask))
        named = context.images.put(flat(RED))
        made = run(context, mask_tensors.ApplyMaskTensorToImageInvocation(mask=field, image=named, invert=invert))
        alpha = [255, 128, 0]
        expected = [255 - value for value in alpha] if invert else alpha
        assert [made.getpixel((x, 9)) for x in (10, 25, 35)] == [(255, 0, 0, value) for value in expected]
        small = context.images.put(flat(RED, size=(4, 4)))
        with pytest.raises(NodeError, match="40×20"):
            mask_tensors.ApplyMaskTensorToImageInvocation(mask=field, image=small).invoke(context)


class TestFade:
    def test_black_reaches_out_and_fades(self, context: FakeContext) -> None:
        named = context.images.put(half((100, 8)))
        made = run(context, mask_images.ExpandMaskWithFadeInvocation(mask=named, fade_size_px=20))
        row = np.asarray(made, dtype=int)[4]
        assert not row[:50].any()
        assert 0 < row[50] < 5
        assert (np.diff(row) >= 0).all()
        assert row[59] == pytest.approx(127.5, abs=1)
        assert (row[69:] == 255).all()
        assert row[67] < 255
        assert context.images.saved[-1].image_category is ImageCategory.MASK

    def test_threshold_says_what_is_black(self, context: FakeContext) -> None:
        named = context.images.put(flat(100, "L"))
        for threshold, expected in ((99, 255), (100, 0)):
            node = mask_images.ExpandMaskWithFadeInvocation(mask=named, threshold=threshold)
            assert run(context, node).getextrema() == (expected, expected)

    @pytest.mark.parametrize("image", [picture("L"), half(), flat(255, "L"), flat(0, "L")])
    def test_no_fade_leaves_the_mask(self, context: FakeContext, image: Image.Image) -> None:
        node = mask_images.ExpandMaskWithFadeInvocation(mask=context.images.put(image), fade_size_px=0)
        assert run(context, node).tobytes() == image.tobytes()


class TestBounds:
    @pytest.mark.parametrize(
        ("margin", "expected"),
        [(0, (4, 5, 9, 11)), (2, (2, 3, 11, 13)), (100, (0, 0, 20, 16)), (-1, (5, 6, 8, 10)), (-3, (0, 0, 0, 0))],
    )
    def test_white(self, context: FakeContext, margin: int, expected: tuple[int, ...]) -> None:
        mask = flat(0, "L", (20, 16))
        mask.paste(255, (4, 5, 9, 11))
        node = mask_images.GetMaskBoundingBoxInvocation(mask=context.images.put(mask), margin=margin)
        box = node.invoke(context).bounding_box
        assert (box.x_min, box.y_min, box.x_max, box.y_max) == expected

    def test_another_color_and_none(self, context: FakeContext) -> None:
        image = flat(RED, size=(6, 6))
        image.paste(BLUE, (0, 5, 6, 6))
        named = context.images.put(image)
        color = ColorField(r=0, g=0, b=255, a=255)
        box = mask_images.GetMaskBoundingBoxInvocation(mask=named, mask_color=color).invoke(context).bounding_box
        assert (box.x_min, box.x_max, box.y_min, box.y_max) == (0, 6, 5, 6)
        none = mask_images.GetMaskBoundingBoxInvocation(mask=named).invoke(context).bounding_box
        assert set(none.tuple()) == {0}

    @given(data=st.binary(min_size=12, max_size=12), margin=st.integers(-3, 3))
    def test_it_is_always_within(self, data: bytes, margin: int) -> None:
        matches = np.frombuffer(data, dtype=np.uint8).reshape(3, 4) > 200
        left, top, right, bottom = masks.bounds(matches, margin)
        assert 0 <= left <= right <= 4
        assert 0 <= top <= bottom <= 3
        if margin == 0:
            assert matches[top:bottom, left:right].sum() == matches.sum()


class TestEdges:
    def test_a_step_is_one_line(self) -> None:
        found = edges.canny(np.asarray(half()), 100, 200)
        assert found.shape == (20, 40)
        assert set(np.unique(found)) == {0, 255}
        assert (found > 0).sum(axis=1).tolist() == [1] * 20
        assert set(np.nonzero(found)[1]) <= {19, 20}

    @pytest.mark.parametrize("turn", [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180])
    def test_a_turned_step_too(self, turn: Image.Transpose) -> None:
        found = edges.canny(np.asarray(half().transpose(turn)), 100, 200)
        assert (found > 0).sum() == 20

    def test_a_slope_is_found_and_stays_thin(self) -> None:
        y, x = np.mgrid[:40, :40]
        found = edges.canny(((x + y > 40) * 200).astype(np.uint8), 100, 200)
        assert 30 <= (found > 0).sum() <= 80

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

    def test_nothing_in_one_color(self) -> None:
        assert not edges.canny(np.full((5, 5), 77, dtype=np.uint8), 0, 0).any()
        assert edges.canny(np.zeros((1, 1), dtype=np.uint8), 0, 0).shape == (1, 1)

    def test_mask_edge(self, context: FakeContext) -> None:
        named = context.images.put(half((80, 40)))

        def edge(size: int, blur: int) -> np.ndarray:
            node = mask_images.MaskEdgeInvocation(
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

    def test_gray_is_edge_too(self, context: FakeContext) -> None:
        node = mask_images.MaskEdgeInvocation(
            image=context.images.put(flat(100, "L")), edge_size=0, edge_blur=0, low_threshold=100, high_threshold=200
        )
        assert run(context, node).getextrema() == (0, 0)


class TestCanvas:
    def test_the_new_shows_where_the_mask_is_black(self, context: FakeContext) -> None:
        old, new, mask = (context.images.put(image) for image in (flat(RED), flat(BLUE), half()))
        made = run(context, canvas.CanvasPasteBackInvocation(source_image=old, target_image=new, mask=mask))
        assert made.size == (40, 20)
        assert [made.getpixel((x, 9)) for x in (0, 19, 20, 39)] == [BLUE, BLUE, RED, RED]

    @pytest.mark.parametrize("blur", [1, 2, 3, 4, 8])
    def test_blur_goes_outwards(self, context: FakeContext, blur: int) -> None:
        size = (200, 20)
        old, new, mask = (context.images.put(i) for i in (flat(RED, size=size), flat(BLUE, size=size), half(size)))
        node = canvas.CanvasPasteBackInvocation(source_image=old, target_image=new, mask=mask, mask_blur=blur)
        made = np.asarray(run(context, node), dtype=int)[10]
        assert (made[: 100 - 2 * blur, 2] >= 250).all()
        assert made[99, 2] >= (200 if blur > 1 else 120)
        assert (np.diff(made[:, 0]) >= 0).all()
        assert (made[100 + 8 * blur :, 0] == 255).all()
        assert len(set(made[:, 0].tolist())) > 2

    @pytest.mark.parametrize(("color", "expected"), [(0, BLUE), (255, RED)])
    def test_whole_masks(self, context: FakeContext, color: int, expected: tuple[int, ...]) -> None:
        old, new, mask = (context.images.put(image) for image in (flat(RED), flat(BLUE), flat(color, "L")))
        for blur in (0, 8, 2**20):
            made = run(
                context,
                canvas.CanvasPasteBackInvocation(source_image=old, target_image=new, mask=mask, mask_blur=blur),
            )
            assert made.getcolors() == [(800, expected)]

    def test_sizes_must_fit(self, context: FakeContext) -> None:
        old, new, mask = (context.images.put(image) for image in (flat(RED), flat(BLUE, size=(41, 20)), half()))
        with pytest.raises(NodeError, match="41×20"):
            canvas.CanvasPasteBackInvocation(source_image=old, target_image=new, mask=mask).invoke(context)
        with pytest.raises(NodeError, match="41×20"):
            canvas.CanvasPasteBackInvocation(source_image=new, target_image=new, mask=mask).invoke(context)
        with pytest.raises(NodeError, match="41×20"):
            canvas.CanvasV2MaskAndCropInvocation(generated_image=new, mask=mask).invoke(context)

    def test_cut_out_or_over_the_old(self, context: FakeContext) -> None:
        clear = flat(BLUE)
        clear.paste(CLEAR, (0, 0, 5, 20))
        old, new, mask = (context.images.put(image) for image in (flat(RED), clear, half()))
        cut = run(context, canvas.CanvasV2MaskAndCropInvocation(generated_image=new, mask=mask))
        assert [cut.getpixel((x, 9))[3] for x in (0, 6, 19, 20)] == [0, 255, 255, 0]
        assert cut.getpixel((6, 9)) == BLUE
        over = run(context, canvas.CanvasV2MaskAndCropInvocation(source_image=old, generated_image=new, mask=mask))
        assert [over.getpixel((x, 9)) for x in (6, 19, 20)] == [BLUE, BLUE, RED]


@given(data=st.binary(min_size=24, max_size=24), size=st.integers(1, 9))
@settings(deadline=None)
def test_fading_only_darkens_what_is_white(data: bytes, size: int) -> None:
    mask = np.where(np.frombuffer(data, dtype=np.uint8).reshape(4, 6) > 127, 255, 0).astype(np.uint8)
    faded = masks.faded(mask, 0, size)
    assert ((faded == 0) == (mask == 0)).all() or size > 1
    assert (faded <= mask).all()
    assert not faded[mask == 0].any()
