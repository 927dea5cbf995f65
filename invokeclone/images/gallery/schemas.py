"""What galleries list: images and videos in one form."""

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel

from invokeclone.graph.vocabulary.taxonomy import ImageCategory


class GalleryItemKind(StrEnum):
    """An image or a video."""

    IMAGE = "image"
    VIDEO = "video"


class GalleryItem(BaseModel):
    """An image or a video, as a gallery shows it; images have neither duration nor fps."""

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
    """Which image or video."""

    kind: GalleryItemKind
    name: str


class GalleryItemNames(BaseModel):
    """The names of a whole gallery in its order; the starred ones come first."""

    item_names: list[str]
    starred_count: int
    total_count: int


class GalleryItemNamesResult(BaseModel):
    """The kinds and names of a whole gallery in its order; the starred ones come first."""

    items: list[GalleryItemRef]
    starred_count: int
    total_count: int
