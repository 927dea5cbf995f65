"""Nodes that put a generated image back onto the canvas."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from invokeclone.graph.invocations.invocation import NodeError
from invokeclone.nodes.images import canvas
from tests.fakes_context import FakeContext

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


class TestCanvas:
    def test_generated_image_shows_where_the_mask_is_black(self, context: FakeContext) -> None:
        old, new, mask = (context.images.put(image) for image in (flat(RED), flat(BLUE), half()))
        result = run(context, canvas.CanvasPasteBackInvocation(source_image=old, target_image=new, mask=mask))
        assert result.size == (40, 20)
        assert [result.getpixel((x, 9)) for x in (0, 19, 20, 39)] == [BLUE, BLUE, RED, RED]

    @pytest.mark.parametrize("blur", [1, 2, 3, 4, 8])
    def test_mask_blur_extends_outwards(self, context: FakeContext, blur: int) -> None:
        size = (200, 20)
        old, new, mask = (context.images.put(i) for i in (flat(RED, size=size), flat(BLUE, size=size), half(size)))
        node = canvas.CanvasPasteBackInvocation(source_image=old, target_image=new, mask=mask, mask_blur=blur)
        result = np.asarray(run(context, node), dtype=int)[10]
        assert (result[: 100 - 2 * blur, 2] >= 250).all()
        assert result[99, 2] >= (200 if blur > 1 else 120)
        assert (np.diff(result[:, 0]) >= 0).all()
        assert (result[100 + 8 * blur :, 0] == 255).all()
        assert len(set(result[:, 0].tolist())) > 2

    @pytest.mark.parametrize(("color", "expected"), [(0, BLUE), (255, RED)])
    def test_uniform_masks_select_one_image(self, context: FakeContext, color: int, expected: tuple[int, ...]) -> None:
        old, new, mask = (context.images.put(image) for image in (flat(RED), flat(BLUE), flat(color, "L")))
        for blur in (0, 8, 2**20):
            result = run(
                context,
                canvas.CanvasPasteBackInvocation(source_image=old, target_image=new, mask=mask, mask_blur=blur),
            )
            assert result.getcolors() == [(800, expected)]

    def test_sizes_must_fit(self, context: FakeContext) -> None:
        old, new, mask = (context.images.put(image) for image in (flat(RED), flat(BLUE, size=(41, 20)), half()))
        with pytest.raises(NodeError, match="41×20"):
            canvas.CanvasPasteBackInvocation(source_image=old, target_image=new, mask=mask).invoke(context)
        with pytest.raises(NodeError, match="41×20"):
            canvas.CanvasPasteBackInvocation(source_image=new, target_image=new, mask=mask).invoke(context)
        with pytest.raises(NodeError, match="41×20"):
            canvas.CanvasV2MaskAndCropInvocation(generated_image=new, mask=mask).invoke(context)

    def test_result_is_a_cutout_or_pasted_over_the_source(self, context: FakeContext) -> None:
        clear = flat(BLUE)
        clear.paste(CLEAR, (0, 0, 5, 20))
        old, new, mask = (context.images.put(image) for image in (flat(RED), clear, half()))
        cut = run(context, canvas.CanvasV2MaskAndCropInvocation(generated_image=new, mask=mask))
        assert [cut.getpixel((x, 9))[3] for x in (0, 6, 19, 20)] == [0, 255, 255, 0]
        assert cut.getpixel((6, 9)) == BLUE
        over = run(context, canvas.CanvasV2MaskAndCropInvocation(source_image=old, generated_image=new, mask=mask))
        assert [over.getpixel((x, 9)) for x in (6, 19, 20)] == [BLUE, BLUE, RED]
