"""Response schemas of the gallery."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel

from invokeclone.graph.vocabulary.taxonomy import ImageCategory


class GalleryItemKind(StrEnum):
    """An image or a video."""

    IMAGE = "image"
    VIDEO = "video"


class GalleryItem(BaseModel):
    """An image or a video in a gallery; `duration` and `fps` are null for images."""

    kind: GalleryItemKind
    name: str
    full_url: str
    thumbnail_url: str
    width: int
    height: int
    category: ImageCategory
    starred: bool
    is_intermediate: bool
    board_id: str | None = None
    created_at: datetime | str
    duration: float | None = None
    fps: float | None = None


class GalleryItemRef(BaseModel):
    """Kind and name of an image or a video."""

    kind: GalleryItemKind
    name: str


class GalleryItemNames(BaseModel):
    """All names of a gallery list in order; the first `starred_count` items are starred."""

    item_names: list[str]
    starred_count: int
    total_count: int


class GalleryItemNamesResult(BaseModel):
    """All kinds and names of a gallery list in order; the first `starred_count` items are starred."""

    items: list[GalleryItemRef]
    starred_count: int
    total_count: int
