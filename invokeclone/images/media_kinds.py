"""The kinds of media records, images and videos: the columns, URLs and errors by which shared code handles both."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

from sqlalchemy import ColumnElement, Select, Table, bindparam, func, literal_column, select

from invokeclone.images.errors import ImageNotFound, ImageNotUpdated, VideoNotFound, VideoNotUpdated
from invokeclone.kit.errors import BadRequest, NotFound
from invokeclone.tables import image_counts, images, videos


@dataclass(frozen=True, eq=False)
class MediaKind:
    """A kind of items that have an owner, are listed in galleries and may be on a board."""

    type_name: str
    """Prefix of its columns, and its part of URLs."""

    table: Table
    not_found_error: Callable[[str], NotFound]
    not_updated_error: Callable[[str], BadRequest]
    tiebreaker: ColumnElement[str]
    """Sort key for items with the same time: the name, or a value that sorts like it and after all other kinds."""

    extra_columns: tuple[str, ...] = ()
    """Columns of the DTO that only this kind has."""

    def __str__(self) -> str:
        return self.type_name

    def column(self, name: str) -> ColumnElement[Any]:
        """Return the column with the kind's prefix."""
        return self.table.c[f"{self.type_name}_{name}"]

    @cached_property
    def name(self) -> ColumnElement[str]:
        """The name, which is the public id."""
        return self.column("name")

    @cached_property
    def origin(self) -> ColumnElement[str]:
        """Generated here or uploaded."""
        return self.column("origin")

    @cached_property
    def category(self) -> ColumnElement[str]:
        """The category."""
        return self.column("category")

    @cached_property
    def subfolder(self) -> ColumnElement[str]:
        """The subfolder of its files."""
        return self.column("subfolder")

    @cached_property
    def user_id(self) -> ColumnElement[str]:
        """The owner."""
        return self.table.c.user_id

    @cached_property
    def board_id(self) -> ColumnElement[str | None]:
        """The board that the item is on."""
        return self.table.c.board_id

    @cached_property
    def is_user_owned(self) -> ColumnElement[bool]:
        """Condition that a signed-in user owns the item.

        It lets lists by owner use the partial indexes with this condition.
        """
        return self.user_id != literal_column("'system'")

    @cached_property
    def dto_columns(self) -> tuple[str, ...]:
        """The columns of the DTO."""
        prefixed = tuple(f"{self.type_name}_{name}" for name in ("name", "origin", "category", "subfolder"))
        return (*prefixed, *_DTO_COLUMNS, *self.extra_columns)

    @cached_property
    def record(self) -> Select[Any]:
        """Select the columns of the DTO."""
        return select(*[self.table.c[name] for name in self.dto_columns])

    @cached_property
    def location(self) -> Select[Any]:
        """Select the columns that determine the file paths."""
        return select(*self.change_columns[:2])

    @cached_property
    def metadata(self) -> Select[Any]:
        """Select the metadata."""
        return select(self.table.c.metadata)

    @cached_property
    def change_columns(self) -> tuple[ColumnElement[Any], ...]:
        """The columns of `AffectedItem`: name, subfolder, board."""
        return self.name, self.subfolder, self.board_id

    @cached_property
    def has_name(self) -> ColumnElement[bool]:
        """Condition that the name equals the parameter `name`."""
        return self.name == bindparam("name", required=False)

    def url(self, name: str, part: str = "full") -> str:
        """Return the URL of the file (or its `thumbnail`), relative to the server's URL."""
        return f"api/v1/{self.type_name}s/i/{quote(name, safe='')}/{part}"

    def fields(self, row: Any) -> dict[str, Any]:
        """Return the fields of the DTO for a row of `record`."""
        fields: dict[str, Any] = dict(zip(self.dto_columns, row, strict=True))
        for flag in _FLAGS:
            fields[flag] = bool(fields[flag])
        name = row[0]
        fields[f"{self.type_name}_url"] = self.url(name)
        fields["thumbnail_url"] = self.url(name, "thumbnail")
        fields["deleted_at"] = None
        return fields


_FLAGS = ("is_intermediate", "starred", "has_workflow")
"""Boolean columns, which a prepared statement returns as 0 and 1."""

_DTO_COLUMNS = (
    "width",
    "height",
    "created_at",
    "updated_at",
    "is_intermediate",
    "session_id",
    "node_id",
    "starred",
    "has_workflow",
    "board_id",
)

IMAGES = MediaKind("image", images, ImageNotFound, ImageNotUpdated, images.c.image_name)
VIDEOS = MediaKind("video", videos, VideoNotFound, VideoNotUpdated, videos.c.gallery_name, ("duration", "fps"))


class _ImageCounts(MediaKind):
    """The table of image counts, filtered with the same conditions as the images."""

    @cached_property
    def board_id(self) -> ColumnElement[str | None]:
        """The board that the images are on."""
        return func.nullif(self.table.c.board_id, "")


IMAGE_COUNTS = _ImageCounts("image", image_counts, ImageNotFound, ImageNotUpdated, images.c.image_name)
