"""Tiles cover the image and say truly how far they overlap."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invokeclone.graph.fields import ImageField
from invokeclone.nodes import tiles
from invokeclone.nodes.tiles import even_spans, grid, overlapping_spans, spread_spans

NOTHING: Any = None


def check(spans: list[tuple[int, int]], length: int) -> None:
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(0 <= start < end <= length for start, end in spans)
    assert all(one[1] >= other[0] and one[0] <= other[0] for one, other in itertools.pairwise(spans))


@given(length=st.integers(1, 3000), size=st.integers(1, 1000), overlap=st.integers(0, 999))
def test_spans_cover(length: int, size: int, overlap: int) -> None:
    size = min(size, length)
    overlap = min(overlap, size - 1)
    fixed = overlapping_spans(length, size, overlap)
    check(fixed, length)
    assert all(one[1] - other[0] == overlap for one, other in itertools.pairwise(fixed[:-1]))
    spread = spread_spans(length, size, overlap)
    check(spread, length)
    assert all(one[1] - other[0] >= overlap for one, other in itertools.pairwise(spread))


@given(length=st.integers(256, 3000), count=st.integers(1, 4), overlap=st.integers(0, 5))
def test_even_spans_cover(length: int, count: int, overlap: int) -> None:
    check(even_spans(length, count, overlap * 8), length)


def test_grid() -> None:
    one, two, three, four = grid([(0, 10), (6, 16)], [(0, 8), (8, 16)])
    assert [tile.coords.left for tile in (one, two, three, four)] == [0, 8, 0, 8]
    assert one.overlap.model_dump() == {"top": 0, "bottom": 4, "left": 0, "right": 0}
    assert four.overlap.top == 4


def test_nodes() -> None:
    found = tiles.CalculateImageTilesInvocation().invoke(NOTHING).tiles
    assert len(found) == 4
    assert found[3].coords.model_dump() == {"top": 448, "bottom": 1024, "left": 448, "right": 1024}
    assert len(tiles.CalculateImageTilesEvenSplitInvocation().invoke(NOTHING).tiles) == 4
    assert len(tiles.CalculateImageTilesMinimumOverlapInvocation().invoke(NOTHING).tiles) == 4
    numbers = tiles.TileToPropertiesInvocation(tile=found[3]).invoke_checked(NOTHING)
    assert (numbers.width, numbers.overlap_left, numbers.overlap_right) == (576, 128, 0)  # type: ignore[attr-defined]
    pair = tiles.PairTileImageInvocation(tile=found[0], image=ImageField(image_name="x")).invoke(NOTHING)
    assert pair.tile_with_image.image.image_name == "x"


@pytest.mark.parametrize("arguments", [{"tile_width": 2000}, {"overlap": 576}])
def test_what_does_not_fit(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="tile"):
        tiles.CalculateImageTilesInvocation(**arguments).invoke(NOTHING)
