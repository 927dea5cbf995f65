"""Nodes that make, save, resize and cut images."""

import pytest
from PIL import Image, ImageShow

from invokeclone.graph.invocations.invocation import NodeError
from invokeclone.graph.vocabulary.fields import BoundingBoxField, ColorField, ImageField
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.nodes.images import basic, size
from tests.applications import sample_image
from tests.fakes_context import FakeContext

RED, CLEAR = (255, 0, 0, 255), (0, 0, 0, 0)


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def make_red_image(width: int = 10, height: int = 8) -> Image.Image:
    return Image.new("RGB", (width, height), "red")


def test_image_node_returns_the_existing_image(context: FakeContext) -> None:
    named = context.images.put(sample_image())
    output = basic.ImageInvocation(image=named).invoke(context)
    assert (output.image, output.width, output.height) == (named, 48, 32)
    assert context.images.saved == []


def test_collection_has_connected_images_before_selected_images(context: FakeContext) -> None:
    a, b = ImageField(image_name="a"), ImageField(image_name="b")
    assert basic.ImageCollectionInvocation(collection=[a], images=[b]).invoke(context).collection == [a, b]
    assert basic.ImageCollectionInvocation().invoke(context).collection == []


@pytest.mark.parametrize(("mode", "expected"), [("RGB", (1, 2, 3)), ("RGBA", (1, 2, 3, 4))])
def test_blank(context: FakeContext, mode: str, expected: tuple[int, ...]) -> None:
    node = basic.BlankImageInvocation(width=7, height=5, mode=mode, color=ColorField(r=1, g=2, b=3, a=4))
    output = node.invoke(context)
    assert (output.width, output.height) == (7, 5)
    assert context.images.last().getpixel((6, 4)) == expected


def test_a_blank_image_is_black_and_512_by_default(context: FakeContext) -> None:
    basic.BlankImageInvocation().invoke(context)
    assert (context.images.last().size, context.images.last().getpixel((0, 0))) == ((512, 512), (0, 0, 0))


@pytest.mark.parametrize("node", [basic.SaveImageInvocation, basic.CanvasOutputInvocation])
def test_saving_again_is_a_new_image_and_never_cached(context: FakeContext, node: type) -> None:
    named = context.images.put(sample_image())
    invocation = node(image=named)
    output = invocation.invoke(context)
    assert output.image != named
    assert context.images.last().tobytes() == sample_image().tobytes()
    assert invocation.use_cache is False


def test_show_opens_no_viewer_on_the_server(context: FakeContext) -> None:
    sizes = []

    class Viewer(ImageShow.Viewer):
        def show(self, image: Image.Image, **options: object) -> int:
            sizes.append(image.size)
            return 1

    before = ImageShow._viewers[:]
    ImageShow.register(Viewer(), 0)
    try:
        named = context.images.put(sample_image())
        assert basic.ShowImageInvocation(image=named).invoke(context).image == named
    finally:
        ImageShow._viewers[:] = before
    assert sizes == []


@pytest.mark.parametrize("source", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F"])
@pytest.mark.parametrize("target", ["L", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"])
def test_every_mode_converts_to_every_mode(context: FakeContext, source: str, target: str) -> None:
    named = context.images.put(sample_image("L").convert(source))
    basic.ImageConvertInvocation(image=named, mode=target).invoke(context)
    assert context.images.last().mode == target


def test_resize_and_scale(context: FakeContext) -> None:
    named = context.images.put(make_red_image())
    output = size.ImageResizeInvocation(image=named, width=30, height=4, resample_mode="nearest").invoke(context)
    assert (output.width, output.height) == (30, 4)
    output = size.ImageScaleInvocation(image=named, scale_factor=1.19).invoke(context)
    assert (output.width, output.height) == (11, 9)
    assert set(size.PIL_RESAMPLING_MAP) == {"nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"}


def test_crop_beyond_the_edges_adds_transparency(context: FakeContext) -> None:
    named = context.images.put(make_red_image())
    size.ImageCropInvocation(image=named, x=-2, y=3, width=20, height=10).invoke(context)
    cut = context.images.last()
    assert (cut.size, cut.mode) == ((20, 10), "RGBA")
    assert [cut.getpixel(at) for at in ((1, 0), (2, 0), (11, 4), (12, 0), (2, 5))] == [CLEAR, RED, RED, CLEAR, CLEAR]


def test_pad_and_crop(context: FakeContext) -> None:
    named = context.images.put(make_red_image())
    size.CenterPadCropInvocation(image=named, left=2, right=-1, top=-3, bottom=4).invoke(context)
    cut = context.images.last()
    assert cut.size == (11, 9)
    assert [cut.getpixel(at) for at in ((1, 0), (2, 0), (10, 4), (10, 5))] == [CLEAR, RED, RED, CLEAR]
    with pytest.raises(NodeError):
        size.CenterPadCropInvocation(image=named, left=-10).invoke(context)


def test_bounding_boxes(context: FakeContext) -> None:
    target = Image.new("RGBA", (20, 20))
    target.paste(RED, (4, 5, 9, 11))
    named = context.images.put(target)
    size.CropImageToBoundingBoxInvocation(image=named).invoke(context)
    assert context.images.last().size == (5, 6)
    box = BoundingBoxField(x_min=1, x_max=11, y_min=2, y_max=10)
    size.CropImageToBoundingBoxInvocation(image=named, bounding_box=box).invoke(context)
    assert context.images.last().size == (10, 8)
    size.CropImageToBoundingBoxInvocation(image=context.images.put(Image.new("RGBA", (3, 3)))).invoke(context)
    assert context.images.last().size == (3, 3)
    source = context.images.put(Image.new("RGBA", (10, 8), (0, 0, 255, 255)))
    size.PasteImageIntoBoundingBoxInvocation(source_image=source, target_image=named, bounding_box=box).invoke(context)
    pasted = context.images.last()
    assert [pasted.getpixel(at) for at in ((0, 2), (1, 2), (10, 9), (5, 10))] == [
        CLEAR,
        (0, 0, 255, 255),
        (0, 0, 255, 255),
        RED,
    ]
    assert context.images.pictures[named.image_name].getpixel((1, 2)) == CLEAR
    for wrong in ((1, 12, 2, 10), (12, 22, 2, 10), (-1, 9, 2, 10)):
        wrong_box = BoundingBoxField(**dict(zip(("x_min", "x_max", "y_min", "y_max"), wrong, strict=True)))
        node = size.PasteImageIntoBoundingBoxInvocation(source_image=source, target_image=named, bounding_box=wrong_box)
        with pytest.raises(NodeError):
            node.invoke(context)


def test_panels(context: FakeContext) -> None:
    node = size.ImagePanelLayoutInvocation(
        width=100, height=50, num_cols=3, num_rows=2, panel_col_idx=2, panel_row_idx=1
    )
    output = node.invoke(context)
    assert (output.x_left, output.y_top, output.width, output.height) == (66, 25, 33, 25)
    with pytest.raises(NodeError):
        size.ImagePanelLayoutInvocation(width=10, height=10, panel_col_idx=1).invoke(context)


def test_saved_images_have_the_general_category(context: FakeContext) -> None:
    size.ImageResizeInvocation(image=context.images.put(make_red_image())).invoke(context)
    assert context.images.saved[0].image_category is ImageCategory.GENERAL
