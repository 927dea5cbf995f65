"""Nodes that make, convert and apply mask tensors."""

from typing import Any

import pytest
import torch
from PIL import Image

from invokeclone.graph.invocations.invocation import NodeError
from invokeclone.graph.invocations.outputs import MaskOutput
from invokeclone.graph.vocabulary.fields import ImageField, TensorField
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.nodes.masks import tensors
from tests.fakes_context import FakeContext

RED, CLEAR = (255, 0, 0, 255), (0, 0, 0, 0)


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def flat(color: Any, mode: str = "RGBA", size: tuple[int, int] = (40, 20)) -> Image.Image:
    return Image.new(mode, size, color)


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
        node = tensors.RectangleMaskInvocation(
            width=10, height=5, x_left=left, y_top=top, rectangle_width=width, rectangle_height=height
        )
        mask = tensor(context, node.invoke(context))
        assert (mask.dtype, tuple(mask.shape), int(mask.sum())) == (torch.bool, (5, 10), expected)
        if expected == 6:
            assert mask[1:3, 2:5].all()

    def test_rectangle_mask_without_area_is_refused(self, context: FakeContext) -> None:
        node = tensors.RectangleMaskInvocation(
            width=0, height=5, x_left=0, y_top=0, rectangle_width=1, rectangle_height=1
        )
        with pytest.raises(NodeError, match="no area"):
            node.invoke(context)

    def test_alpha(self, context: FakeContext) -> None:
        image = flat(CLEAR)
        image.paste((9, 9, 9, 1), (0, 0, 10, 20))
        named = context.images.put(image)
        mask = tensor(context, tensors.AlphaMaskToTensorInvocation(image=named).invoke(context))
        assert mask[:, :10].all()
        assert not mask[:, 10:].any()
        other = tensor(context, tensors.AlphaMaskToTensorInvocation(image=named, invert=True).invoke(context))
        assert torch.equal(other, ~mask)
        opaque = context.images.put(flat(0, "L"))
        assert tensor(context, tensors.AlphaMaskToTensorInvocation(image=opaque).invoke(context)).all()

    @pytest.mark.parametrize(("cutoff", "expected"), [(0, True), (128, True), (129, False)])
    def test_gray(self, context: FakeContext, cutoff: int, expected: bool) -> None:
        named = context.images.put(flat((128, 128, 128), "RGB"))
        node = tensors.ImageMaskToTensorInvocation
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
        output = tensors.InvertTensorMaskInvocation(mask=field).invoke(context)
        assert torch.equal(tensor(context, output), expected)

    def test_tensors_of_other_shapes_are_refused(self, context: FakeContext) -> None:
        field = TensorField(tensor_name=context.tensors.save(torch.zeros(1, 4, 8, 8)))
        with pytest.raises(NodeError, match=r"\(1, 4, 8, 8\)"):
            tensors.MaskTensorToImageInvocation(mask=field).invoke(context)

    def test_mask_image_round_trip(self, context: FakeContext) -> None:
        mask = torch.zeros(1, 4, 6, dtype=torch.bool)
        mask[:, :, 3:] = True
        field = TensorField(tensor_name=context.tensors.save(mask))
        image = run(context, tensors.MaskTensorToImageInvocation(mask=field))
        assert (image.mode, image.size, image.getpixel((2, 0)), image.getpixel((3, 0))) == ("L", (6, 4), 0, 255)
        assert context.images.saved[-1].image_category is ImageCategory.MASK
        named = ImageField(image_name=context.images.saved[-1].image_name)
        back = tensors.ImageMaskToTensorInvocation(image=named).invoke(context)
        assert torch.equal(context.tensors.load(back.mask.tensor_name), mask)

    @pytest.mark.parametrize("invert", [False, True])
    def test_mask_is_applied_to_an_image(self, context: FakeContext, invert: bool) -> None:
        mask = torch.zeros(1, 20, 40)
        mask[:, :, :20], mask[:, :, 20:30] = 1.0, 0.5
        field = TensorField(tensor_name=context.tensors.save(mask))
        named = context.images.put(flat(RED))
        result = run(context, tensors.ApplyMaskTensorToImageInvocation(mask=field, image=named, invert=invert))
        alpha = [255, 128, 0]
        expected = [255 - value for value in alpha] if invert else alpha
        assert [result.getpixel((x, 9)) for x in (10, 25, 35)] == [(255, 0, 0, value) for value in expected]
        small = context.images.put(flat(RED, size=(4, 4)))
        with pytest.raises(NodeError, match="40×20"):
            tensors.ApplyMaskTensorToImageInvocation(mask=field, image=small).invoke(context)
