"""Nodes that divide an image into overlapping tiles (rectangles without pixels), and merge the images of tiles."""

import itertools
from math import ceil
from typing import Literal

from PIL import Image
from pydantic import BaseModel, Field

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import (
    BaseInvocation,
    BaseInvocationOutput,
    NodeError,
    invocation,
    invocation_output,
)
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.sizes import check_pixels
from invokeclone.graph.vocabulary.fields import ImageField, Input, InputField, OutputField, WithBoard, WithMetadata
from invokeclone.kit.errors import Unprocessable


class TBLR(BaseModel):
    """The four edges of a rectangle."""

    top: int
    bottom: int
    left: int
    right: int


class Tile(BaseModel):
    """A part of an image, and its overlap with its neighbors."""

    coords: TBLR = Field(description="Edges in the image, in pixels; bottom and right are exclusive")
    overlap: TBLR = Field(description="Overlap with the neighbor at each edge, in pixels")


class TileWithImage(BaseModel):
    """A tile and its image."""

    tile: Tile
    image: ImageField


@invocation_output("calculate_image_tiles_output")
class CalculateImageTilesOutput(BaseInvocationOutput):
    """The tiles of an image."""

    tiles: list[Tile] = OutputField(description="The tiles, row by row")


@invocation_output("tile_to_properties_output")
class TileToPropertiesOutput(BaseInvocationOutput):
    """The coordinates, size and overlaps of a tile."""

    coords_left: int = OutputField(description="Left edge, inclusive")
    coords_right: int = OutputField(description="Right edge, exclusive")
    coords_top: int = OutputField(description="Top edge, inclusive")
    coords_bottom: int = OutputField(description="Bottom edge, exclusive")
    width: int = OutputField(description="Width in pixels")
    height: int = OutputField(description="Height in pixels")
    overlap_top: int = OutputField(description="Overlap at the top")
    overlap_bottom: int = OutputField(description="Overlap at the bottom")
    overlap_left: int = OutputField(description="Overlap at the left")
    overlap_right: int = OutputField(description="Overlap at the right")


@invocation_output("pair_tile_image_output")
class PairTileImageOutput(BaseInvocationOutput):
    """A tile and its image."""

    tile_with_image: TileWithImage = OutputField(description="The tile and its image")


Span = tuple[int, int]
"""Start and end (exclusive) of a tile along one axis."""


def overlapping_spans(length: int, size: int, overlap: int) -> list[Span]:
    """Return tiles of one size with a fixed overlap.

    Only the last, aligned to the end of the image, may overlap more.
    """
    if not 0 <= overlap < size:
        message = "overlap must be less than the tile size"
        raise ValueError(message)
    if size > length:
        message = "tiles must not be larger than the image"
        raise ValueError(message)
    count = 1 + ceil((length - size) / (size - overlap))
    starts = [min(index * (size - overlap), length - size) for index in range(count)]
    return [(start, start + size) for start in starts]


def spread_spans(length: int, size: int, min_overlap: int) -> list[Span]:
    """Return the fewest tiles of one size that overlap by at least `min_overlap`, evenly spread."""
    if min_overlap >= size:
        message = "min_overlap must be less than the tile size"
        raise ValueError(message)
    size = min(size, length)
    count = 1 if size == length else ceil((length - min_overlap) / (size - min_overlap))
    if count == 1:
        return [(0, size)]
    starts = [round(index * (length - size) / (count - 1)) for index in range(count)]
    return [(start, start + size) for start in starts]


def even_spans(length: int, count: int, overlap: int) -> list[Span]:
    """Return `count` tiles of about equal size, a multiple of 8, that overlap by about `overlap`."""
    if count == 1:
        return [(0, length)]
    size = min(length, ceil((length + overlap * (count - 1)) / count / 8) * 8)
    if overlap >= size:
        message = "overlap must be less than the tile size"
        raise ValueError(message)
    starts = [min(index * (size - overlap), length - size) for index in range(count)]
    return [(start, start + size) for start in starts]


def _check_number(number: int, context: InvocationContext) -> None:
    """Raise Unprocessable for more tiles than a list may have."""
    limit = context.config.get().limits.collection_items
    if number > limit:
        raise Unprocessable(f"{number} tiles exceed the limit of {limit} (setting limits.collection_items)")


def grid(rows: list[Span], columns: list[Span]) -> list[Tile]:
    """Return the tiles of a grid, row by row, with their overlaps."""
    shared_rows, shared_columns = _overlaps(rows), _overlaps(columns)
    return [
        Tile(
            coords=TBLR(top=row[0], bottom=row[1], left=column[0], right=column[1]),
            overlap=TBLR(top=above, bottom=below, left=before, right=after),
        )
        for row, (above, below) in zip(rows, shared_rows, strict=True)
        for column, (before, after) in zip(columns, shared_columns, strict=True)
    ]


def _overlaps(spans: list[Span]) -> list[Span]:
    """Return the overlap of each span with the previous and the next one."""
    between = [max(0, first[1] - second[0]) for first, second in itertools.pairwise(spans)]
    return list(zip([0, *between], [*between, 0], strict=True))


@invocation(
    "calculate_image_tiles",
    title="Calculate Image Tiles",
    tags=["tiles"],
    category="tiles",
    version="1.0.1",
)
class CalculateImageTilesInvocation(BaseInvocation):
    """Divide an image into tiles of one size with a fixed overlap."""

    image_width: int = InputField(default=1024, ge=1, description="Width of the image in pixels")
    image_height: int = InputField(default=1024, ge=1, description="Height of the image in pixels")
    tile_width: int = InputField(default=576, ge=1, description="Width of a tile in pixels")
    tile_height: int = InputField(default=576, ge=1, description="Height of a tile in pixels")
    overlap: int = InputField(default=128, ge=0, description="Overlap of neighboring tiles, in pixels")

    def invoke(self, context: InvocationContext) -> CalculateImageTilesOutput:
        """Return the tiles. Raises ValueError when they do not fit, Unprocessable for too many."""
        rows = overlapping_spans(self.image_height, self.tile_height, self.overlap)
        columns = overlapping_spans(self.image_width, self.tile_width, self.overlap)
        _check_number(len(rows) * len(columns), context)
        return CalculateImageTilesOutput(tiles=grid(rows, columns))


@invocation(
    "calculate_image_tiles_even_split",
    title="Calculate Image Tiles Even Split",
    tags=["tiles"],
    category="tiles",
    version="1.1.1",
)
class CalculateImageTilesEvenSplitInvocation(BaseInvocation):
    """Divide an image into a number of equal tiles."""

    image_width: int = InputField(default=1024, ge=1, description="Width of the image in pixels")
    image_height: int = InputField(default=1024, ge=1, description="Height of the image in pixels")
    num_tiles_x: int = InputField(default=2, ge=1, description="Number of tiles per row")
    num_tiles_y: int = InputField(default=2, ge=1, description="Number of tiles per column")
    overlap: int = InputField(default=128, ge=0, multiple_of=8, description="Overlap of neighboring tiles, in pixels")

    def invoke(self, context: InvocationContext) -> CalculateImageTilesOutput:
        """Return the tiles. Raises ValueError when they do not fit, Unprocessable for too many."""
        _check_number(self.num_tiles_x * self.num_tiles_y, context)
        rows = even_spans(self.image_height, self.num_tiles_y, self.overlap)
        columns = even_spans(self.image_width, self.num_tiles_x, self.overlap)
        return CalculateImageTilesOutput(tiles=grid(rows, columns))


@invocation(
    "calculate_image_tiles_min_overlap",
    title="Calculate Image Tiles Minimum Overlap",
    tags=["tiles"],
    category="tiles",
    version="1.0.1",
)
class CalculateImageTilesMinimumOverlapInvocation(BaseInvocation):
    """Divide an image into evenly spread tiles of one size with a minimum overlap."""

    image_width: int = InputField(default=1024, ge=1, description="Width of the image in pixels")
    image_height: int = InputField(default=1024, ge=1, description="Height of the image in pixels")
    tile_width: int = InputField(default=576, ge=1, description="Width of a tile in pixels")
    tile_height: int = InputField(default=576, ge=1, description="Height of a tile in pixels")
    min_overlap: int = InputField(default=128, ge=0, description="Minimum overlap of neighboring tiles, in pixels")

    def invoke(self, context: InvocationContext) -> CalculateImageTilesOutput:
        """Return the tiles. Raises ValueError when they do not fit, Unprocessable for too many."""
        rows = spread_spans(self.image_height, self.tile_height, self.min_overlap)
        columns = spread_spans(self.image_width, self.tile_width, self.min_overlap)
        _check_number(len(rows) * len(columns), context)
        return CalculateImageTilesOutput(tiles=grid(rows, columns))


@invocation(
    "tile_to_properties",
    title="Tile to Properties",
    tags=["tiles"],
    category="tiles",
    version="1.0.1",
)
class TileToPropertiesInvocation(BaseInvocation):
    """Get the coordinates, size and overlaps of a tile."""

    tile: Tile = InputField(description="The tile")

    def invoke(self, context: InvocationContext) -> TileToPropertiesOutput:
        """Return the numbers."""
        coords, overlap = self.tile.coords, self.tile.overlap
        return TileToPropertiesOutput(
            coords_left=coords.left,
            coords_right=coords.right,
            coords_top=coords.top,
            coords_bottom=coords.bottom,
            width=coords.right - coords.left,
            height=coords.bottom - coords.top,
            overlap_top=overlap.top,
            overlap_bottom=overlap.bottom,
            overlap_left=overlap.left,
            overlap_right=overlap.right,
        )


@invocation(
    "pair_tile_image",
    title="Pair Tile with Image",
    tags=["tiles"],
    category="tiles",
    version="1.0.1",
)
class PairTileImageInvocation(BaseInvocation):
    """Pair a tile with its image."""

    image: ImageField = InputField(description="The image")
    tile: Tile = InputField(description="The tile")

    def invoke(self, context: InvocationContext) -> PairTileImageOutput:
        """Return both."""
        return PairTileImageOutput(tile_with_image=TileWithImage(tile=self.tile, image=self.image))


@invocation(
    "merge_tiles_to_image",
    title="Merge Tiles to Image",
    tags=["tiles"],
    category="tiles",
    version="1.1.1",
)
class MergeTilesToImageInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Merge the images of overlapping tiles into one."""

    tiles_with_images: list[TileWithImage] = InputField(description="The tiles and their images")
    blend_mode: Literal["Linear", "Seam"] = InputField(
        default="Seam",
        description="Location of the transition between tiles: the center, or the path of least difference",
        input=Input.Direct,
    )
    blend_amount: int = InputField(default=32, ge=0, description="Width of the transition in pixels")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Merge and save the image.

        Raises NodeError without tiles or when an image does not have its tile's size, and SizeOverLimit.
        """
        import numpy as np

        from invokeclone.nodes.images.pixels import joins

        if not self.tiles_with_images:
            raise NodeError("there are no tiles to merge")
        pieces = []
        for part in self.tiles_with_images:
            image, coords = context.images.get_pil(part.image.image_name, mode="RGB"), part.tile.coords
            size = coords.right - coords.left, coords.bottom - coords.top
            if image.size != size or coords.left < 0 or coords.top < 0:
                message = f"an image of {image.width}×{image.height} does not have the size of its tile: {coords}"
                raise NodeError(message)
            pieces.append(joins.Piece(coords.left, coords.top, np.asarray(image, dtype=np.float32)))
        right, bottom = (
            max(getattr(part.tile.coords, edge) for part in self.tiles_with_images) for edge in ("right", "bottom")
        )
        check_pixels(right, bottom, context.config.get().limits, f"node {self.id} ({self.get_type()})")
        try:
            whole = joins.merge(pieces, self.blend_amount, seam=self.blend_mode == "Seam")
        except ValueError as error:
            raise NodeError(str(error)) from error
        merged = Image.fromarray(np.clip(np.round(whole), 0, 255).astype(np.uint8))
        return ImageOutput.build(context.images.save(merged))
