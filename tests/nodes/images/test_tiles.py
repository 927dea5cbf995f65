"""Tiles cover the image and say truly how far they overlap."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from invokeclone.graph.invocations.invocation import NodeError
from invokeclone.graph.vocabulary.fields import ImageField
from invokeclone.nodes.images import tiles
from invokeclone.nodes.images.pixels import joins
from invokeclone.nodes.images.tiles import even_spans, grid, overlapping_spans, spread_spans
from tests.applications import sample_image
from tests.fakes_context import FakeContext

NOTHING: Any = None


def check(spans: list[tuple[int, int]], length: int) -> None:
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(0 <= start < end <= length for start, end in spans)
    assert all(span[1] >= next_span[0] and span[0] <= next_span[0] for span, next_span in itertools.pairwise(spans))


@given(length=st.integers(1, 3000), size=st.integers(1, 1000), overlap=st.integers(0, 999))
def test_overlapping_spans_cover_the_length(length: int, size: int, overlap: int) -> None:
    size = min(size, length)
    overlap = min(overlap, size - 1)
    fixed = overlapping_spans(length, size, overlap)
    check(fixed, length)
    assert all(span[1] - next_span[0] == overlap for span, next_span in itertools.pairwise(fixed[:-1]))
    spread = spread_spans(length, size, overlap)
    check(spread, length)
    assert all(span[1] - next_span[0] >= overlap for span, next_span in itertools.pairwise(spread))


@given(length=st.integers(256, 3000), count=st.integers(1, 4), overlap=st.integers(0, 5))
def test_even_spans_cover_the_length(length: int, count: int, overlap: int) -> None:
    check(even_spans(length, count, overlap * 8), length)


def test_grid() -> None:
    first, second, third, fourth = grid([(0, 10), (6, 16)], [(0, 8), (8, 16)])
    assert [tile.coords.left for tile in (first, second, third, fourth)] == [0, 8, 0, 8]
    assert first.overlap.model_dump() == {"top": 0, "bottom": 4, "left": 0, "right": 0}
    assert fourth.overlap.top == 4


def test_tile_nodes_return_the_expected_tiles() -> None:
    tile_list = tiles.CalculateImageTilesInvocation().invoke(FakeContext()).tiles
    assert len(tile_list) == 4
    assert tile_list[3].coords.model_dump() == {"top": 448, "bottom": 1024, "left": 448, "right": 1024}
    assert len(tiles.CalculateImageTilesEvenSplitInvocation().invoke(FakeContext()).tiles) == 4
    assert len(tiles.CalculateImageTilesMinimumOverlapInvocation().invoke(FakeContext()).tiles) == 4
    numbers = tiles.TileToPropertiesInvocation(tile=tile_list[3]).invoke_checked(NOTHING)
    assert (numbers.width, numbers.overlap_left, numbers.overlap_right) == (576, 128, 0)  # type: ignore[attr-defined]
    pair = tiles.PairTileImageInvocation(tile=tile_list[0], image=ImageField(image_name="x")).invoke(FakeContext())
    assert pair.tile_with_image.image.image_name == "x"


@pytest.mark.parametrize("arguments", [{"tile_width": 2000}, {"overlap": 576}])
def test_invalid_tile_sizes_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="tile"):
        tiles.CalculateImageTilesInvocation(**arguments).invoke(FakeContext())


def cut(context: FakeContext, image: Image.Image, parts: list[tiles.Tile]) -> list[tiles.TileWithImage]:
    """Return the tiles with what the image has there."""
    pieces = []
    for part in parts:
        edges = part.coords
        piece = image.crop((edges.left, edges.top, edges.right, edges.bottom))
        pieces.append(tiles.TileWithImage(tile=part, image=context.images.put(piece)))
    return pieces


@pytest.mark.parametrize("mode", ["Linear", "Seam"])
@pytest.mark.parametrize("blend", [0, 8, 500])
@pytest.mark.parametrize("overlap", [0, 12])
def test_merging_cut_tiles_restores_the_image(mode: str, blend: int, overlap: int) -> None:
    context = FakeContext()
    image = sample_image("RGB", (100, 70))
    parts = grid(overlapping_spans(70, 40, overlap), overlapping_spans(100, 40, overlap))
    node = tiles.MergeTilesToImageInvocation(
        tiles_with_images=list(reversed(cut(context, image, parts))), blend_mode=mode, blend_amount=blend
    )
    output = node.invoke(context)
    assert (output.width, output.height) == (100, 70)
    assert context.images.last().tobytes() == image.tobytes()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("mode", "blend", "width"), [("Linear", 8, 8), ("Linear", 0, 0), ("Seam", 6, 6), ("Seam", 0, 0)]
)
def test_overlapping_tiles_are_blended_gradually(turned: bool, mode: str, blend: int, width: int) -> None:
    context = FakeContext()
    spans = [(0, 40), (20, 60)]
    parts = grid(spans, [(0, 30)]) if turned else grid([(0, 30)], spans)
    images = [Image.new("RGB", (30, 40) if turned else (40, 30), color) for color in ((0,) * 3, (200,) * 3)]
    pairs = [
        tiles.TileWithImage(tile=part, image=context.images.put(image))
        for part, image in zip(parts, images, strict=True)
    ]
    tiles.MergeTilesToImageInvocation(tiles_with_images=pairs, blend_mode=mode, blend_amount=blend).invoke(context)
    values = np.asarray(context.images.last(), dtype=int)[..., 0]
    line = values[:, 15] if turned else values[15]
    assert len(line) == 60
    assert not line[:20].any()
    assert (line[40:] == 200).all()
    assert (np.diff(line) >= 0).all()
    assert ((line > 0) & (line < 200)).sum() == width
    if mode == "Linear":
        assert line[29] + line[30] == 200


def test_seam_follows_the_path_of_least_difference() -> None:
    before, after = np.zeros((10, 20, 3), dtype=np.float32), np.full((10, 20, 3), 100, dtype=np.float32)
    before[:, 14] = after[:, 14] = 50
    assert set(joins.path(np.abs(before - after).sum(axis=-1)).tolist()) == {14}
    result = joins.join(before, after, 0, seam=True)[..., 0]
    assert (result[:, :14] == 0).all()
    assert (result[:, 15:] == 100).all()
    slanted = np.ones((6, 9), dtype=np.float32)
    slanted[np.arange(6), np.arange(6) + 1] = 0
    assert joins.path(slanted).tolist() == [1, 2, 3, 4, 5, 6]


def test_mismatched_tiles_are_refused() -> None:
    context = FakeContext()
    upper, two = cut(context, sample_image("RGB", (60, 30)), grid([(0, 30)], [(0, 40), (20, 60)]))
    with pytest.raises(NodeError, match="no tiles"):
        tiles.MergeTilesToImageInvocation(tiles_with_images=[]).invoke(context)
    small = tiles.TileWithImage(tile=upper.tile, image=context.images.put(sample_image("RGB", (4, 4))))
    with pytest.raises(NodeError, match="4×4"):
        tiles.MergeTilesToImageInvocation(tiles_with_images=[small, two]).invoke(context)
    [lower] = cut(context, sample_image("RGB", (60, 30)), grid([(0, 20)], [(20, 60)]))
    with pytest.raises(NodeError, match="the same height"):
        tiles.MergeTilesToImageInvocation(tiles_with_images=[upper, lower]).invoke(context)
