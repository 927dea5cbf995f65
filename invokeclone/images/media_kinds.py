"""What images and videos have in common as records: one description each, by which the store and the rules treat both alike.

It knows columns, addresses and which error says that one is missing; it knows no SQL and no files.
"""

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
    """A kind of things that have an owner, are listed in galleries and may be on a board."""

    type_name: str
    """What its columns and addresses begin with."""

    table: Table
    not_found_error: Callable[[str], NotFound]
    not_updated_error: Callable[[str], BadRequest]
    tiebreaker: ColumnElement[str]
    """What decides between things of one moment: the name, or what sorts as the name does and after all other kinds."""

    extra_columns: tuple[str, ...] = ()
    """The columns that clients read of this kind only."""

    def __str__(self) -> str:
        return self.type_name

    def column(self, name: str) -> ColumnElement[Any]:
        """Return the column that is named after the kind."""
        return self.table.c[f"{self.type_name}_{name}"]

    @cached_property
    def name(self) -> ColumnElement[str]:
        """The name, by which a thing is known."""
        return self.column("name")

    @cached_property
    def origin(self) -> ColumnElement[str]:
        """Made here or uploaded."""
        return self.column("origin")

    @cached_property
    def category(self) -> ColumnElement[str]:
        """What it is for."""
        return self.column("category")

    @cached_property
    def subfolder(self) -> ColumnElement[str]:
        """Where its files lie."""
        return self.column("subfolder")

    @cached_property
    def user_id(self) -> ColumnElement[str]:
        """Whose it is."""
        return self.table.c.user_id

    @cached_property
    def board_id(self) -> ColumnElement[str | None]:
        """The board that it is on."""
        return self.table.c.board_id

    @cached_property
    def is_user_owned(self) -> ColumnElement[bool]:
        """True of what a signed-in user owns: it lets a list of one user's own read the indexes that hold nothing else."""
        return self.user_id != literal_column("'system'")

    @cached_property
    def dto_columns(self) -> tuple[str, ...]:
        """The columns that clients read."""
        prefixed = tuple(f"{self.type_name}_{name}" for name in ("name", "origin", "category", "subfolder"))
        return (*prefixed, *_DTO_COLUMNS, *self.extra_columns)

    @cached_property
    def record(self) -> Select[Any]:
        """The select of what clients read."""
        return select(*[self.table.c[name] for name in self.dto_columns])

    @cached_property
    def location(self) -> Select[Any]:
        """The select of what says where the files lie."""
        return select(*self.change_columns[:2])

    @cached_property
    def metadata(self) -> Select[Any]:
        """The select of the metadata."""
        return select(self.table.c.metadata)

    @cached_property
    def change_columns(self) -> tuple[ColumnElement[Any], ...]:
        """What a bulk change tells of a thing: name, subfolder, board."""
        return self.name, self.subfolder, self.board_id

    @cached_property
    def has_name(self) -> ColumnElement[bool]:
        """The condition that the name is the parameter `name`."""
        return self.name == bindparam("name", required=False)

    def url(self, name: str, part: str = "full") -> str:
        """Return where the file (or its `thumbnail`) is served, relative to the server's address."""
        return f"api/v1/{self.type_name}s/i/{quote(name, safe='')}/{part}"

    def fields(self, row: Any) -> dict[str, Any]:
        """Return what a client reads of a row of `record`."""
        fields: dict[str, Any] = dict(zip(self.dto_columns, row, strict=True))
        for flag in _FLAGS:
            fields[flag] = bool(fields[flag])
        name = row[0]
        fields[f"{self.type_name}_url"] = self.url(name)
        fields["thumbnail_url"] = self.url(name, "thumbnail")
        fields["deleted_at"] = None
        return fields


_FLAGS = ("is_intermediate", "starred", "has_workflow")
"""Columns that a prepared statement returns as 0 and 1."""

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
    """The table of how many images there are of each sort: its rows meet the conditions that the images meet."""

    @cached_property
    def board_id(self) -> ColumnElement[str | None]:
        """The board that they are on."""
        return func.nullif(self.table.c.board_id, "")


IMAGE_COUNTS = _ImageCounts("image", image_counts, ImageNotFound, ImageNotUpdated, images.c.image_name)
