"""Nodes whose size follows from positions, tiles or factors look at it before they make anything."""

from typing import Any

import pytest
from PIL import Image

from invokeclone.graph.sizes import SizeOverLimit
from invokeclone.graph.vocabulary.fields import ImageField
from invokeclone.kit.config.limits import Limits
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.errors import Unprocessable
from invokeclone.nodes.images import compose, tiles
from invokeclone.nodes.latents.shape import ScaleLatentsInvocation
from tests.fakes_context import FakeConfig, FakeContext


@pytest.fixture
def context() -> FakeContext:
    return FakeContext(config=FakeConfig(Settings(limits=Limits(node_pixels=400, collection_items=16))))


def test_image_pasted_at_a_distant_offset_is_refused(context: FakeContext) -> None:
    field = context.images.put(Image.new("RGBA", (10, 10)))
    paste: Any = lambda x, y: compose.ImagePasteInvocation(base_image=field, image=field, x=x, y=y).invoke(context)  # noqa: E731
    assert (paste(10, -10).width, paste(10, 10).height) == (20, 20)
    for position in ((11, 10), (30_000, 30_000), (10**12, 0), (-30_000, 0)):
        with pytest.raises(SizeOverLimit, match="node_pixels"):
            paste(*position)


@pytest.mark.parametrize(
    ("kind", "fits", "too_many"),
    [
        (tiles.CalculateImageTilesInvocation, {"tile_width": 8, "tile_height": 8, "overlap": 0}, {"tile_width": 4}),
        (tiles.CalculateImageTilesMinimumOverlapInvocation, {"tile_width": 8, "tile_height": 8, "min_overlap": 0}, {"tile_width": 4}),
        (tiles.CalculateImageTilesEvenSplitInvocation, {"num_tiles_x": 4, "num_tiles_y": 4, "overlap": 0}, {"num_tiles_x": 10**12}),
    ],
)  # fmt: skip
def test_too_many_tiles_are_refused(context: Any, kind: Any, fits: dict[str, int], too_many: dict[str, int]) -> None:
    sides = {"image_width": 32, "image_height": 32}
    assert len(kind(**sides, **fits).invoke(context).tiles) == 16
    with pytest.raises(Unprocessable, match="collection_items"):
        kind(**sides, **(fits | too_many)).invoke(context)


def test_tiles_at_distant_coordinates_are_refused(context: Any) -> None:
    field: ImageField = context.images.put(Image.new("RGB", (10, 10)))

    def merge_tile(left: int, top: int) -> Any:
        coords = tiles.TBLR(top=top, bottom=top + 10, left=left, right=left + 10)
        tile = tiles.Tile(coords=coords, overlap=tiles.TBLR(top=0, bottom=0, left=0, right=0))
        pair = tiles.TileWithImage(tile=tile, image=field)
        return tiles.MergeTilesToImageInvocation(tiles_with_images=[pair]).invoke(context)

    assert merge_tile(10, 10).width == 20
    for position in ((11, 10), (10**9, 0), (10**6, 10**6)):
        with pytest.raises(SizeOverLimit, match="node_pixels"):
            merge_tile(*position)


def test_upscaled_latents_over_the_limit_are_refused(context: Any) -> None:
    import torch

    from invokeclone.graph.vocabulary.fields import LatentsField

    field = LatentsField(latents_name=context.tensors.save(torch.zeros(1, 4, 1, 1)), seed=0)
    assert ScaleLatentsInvocation(latents=field, scale_factor=2).invoke(context).width == 16
    with pytest.raises(SizeOverLimit, match="node_pixels"):
        ScaleLatentsInvocation(latents=field, scale_factor=1e6).invoke(context)
